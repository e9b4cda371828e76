//! From an uploaded file to a picture of our own making.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use karat_http::ApiError;

/// Checked against the header, before anything is decoded.
const MAX_PIXELS: u64 = 25_000_000;
const MAX_SIDE: u32 = 10_000;
/// Memory that decoding may take: 25 million pixels of four bytes, and room to work.
const MAX_ALLOC_BYTES: u64 = 192 * 1024 * 1024;
/// The longer side of what is kept.
const KEPT_SIDE: u32 = 512;
const JPEG_QUALITY: u8 = 85;

/// Decodes and writes anew; answers the bytes and the file's extension. Blocks.
///
/// # Errors
/// 415 when the content is no picture of the three kinds, or of another than declared; 422 when it is damaged or too
/// large.
pub(super) fn rewrite(bytes: &[u8], declared: &str) -> Result<(Vec<u8>, &'static str), ApiError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(ApiError::internal)?;
    let format = match reader.format() {
        Some(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => format,
        _ => return Err(ApiError::unsupported_media_type("the content is no PNG, JPEG or WebP picture")),
    };
    if format.to_mime_type() != declared {
        let message = format!("the content is `{}`, `Content-Type` says another", format.to_mime_type());
        return Err(ApiError::unsupported_media_type(message));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|_| damaged())?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(ApiError::validation(vec![format!(
            "the picture has {width} x {height} pixels: at most {MAX_PIXELS} are allowed"
        )]));
    }
    // What cameras write beside the pixels says which way is up; it is applied, then gone.
    let orientation = decoder.orientation().map_err(|_| damaged())?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|_| damaged())?;
    picture.apply_orientation(orientation);
    if width.max(height) > KEPT_SIDE {
        picture = picture.thumbnail(KEPT_SIDE, KEPT_SIDE);
    }
    write(&picture)
}

fn write(picture: &DynamicImage) -> Result<(Vec<u8>, &'static str), ApiError> {
    let mut out = Cursor::new(Vec::new());
    if picture.color().has_alpha() {
        picture.to_rgba8().write_to(&mut out, ImageFormat::Png).map_err(ApiError::internal)?;
        return Ok((out.into_inner(), "png"));
    }
    let encoder = JpegEncoder::new_with_quality(&mut out, JPEG_QUALITY);
    picture.to_rgb8().write_with_encoder(encoder).map_err(ApiError::internal)?;
    Ok((out.into_inner(), "jpg"))
}

fn damaged() -> ApiError {
    ApiError::validation(vec!["the picture is damaged, or larger than the limits allow".to_owned()])
}

#[cfg(test)]
mod tests {
    use image::{RgbImage, RgbaImage};

    use super::*;

    fn file(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        picture.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn plain(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7])).into()
    }

    #[test]
    fn pictures_of_the_three_kinds_are_written_anew_and_made_smaller() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let (bytes, extension) = rewrite(&file(&plain(1000, 500), format), format.to_mime_type()).unwrap();
            let kept = image::load_from_memory(&bytes).unwrap();
            assert_eq!((kept.width(), kept.height(), extension), (512, 256, "jpg"));
        }
        let clear: DynamicImage = RgbaImage::from_pixel(10, 10, image::Rgba([1, 2, 3, 4])).into();
        assert_eq!(rewrite(&file(&clear, ImageFormat::Png), "image/png").unwrap().1, "png");
    }

    #[test]
    fn security_69_the_content_decides_and_must_agree_with_the_header() {
        let png = file(&plain(10, 10), ImageFormat::Png);
        for (bytes, declared) in [
            (png.as_slice(), "image/jpeg"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png"),
            (b"<html><script>alert(1)</script>", "image/png"),
            (b"GIF89a\x01\x00\x01\x00", "image/png"),
            (b"", "image/png"),
        ] {
            assert_eq!(rewrite(bytes, declared).unwrap_err().status().as_u16(), 415);
        }
        assert_eq!(rewrite(&png[..40], "image/png").unwrap_err().status().as_u16(), 422);
    }

    #[test]
    fn security_70_a_small_file_of_many_pixels_is_refused_before_it_is_decoded() {
        let mut png = file(&plain(1, 1), ImageFormat::Png);
        // Width and height in the header, and its checksum.
        png[16..20].copy_from_slice(&9000_u32.to_be_bytes());
        png[20..24].copy_from_slice(&9000_u32.to_be_bytes());
        let sum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&sum.to_be_bytes());
        let error = rewrite(&png, "image/png").unwrap_err();
        assert_eq!(error.status().as_u16(), 422);
        assert!(format!("{error:?}").contains("validation_error"));
    }

    #[test]
    fn security_70_nothing_but_the_picture_is_kept() {
        let mut jpeg = file(&plain(20, 20), ImageFormat::Jpeg);
        let comment = b"canary: 41.40338, 2.17403";
        let mut segment = vec![0xFF, 0xFE];
        segment.extend_from_slice(&u16::try_from(comment.len() + 2).unwrap().to_be_bytes());
        segment.extend_from_slice(comment);
        jpeg.splice(2..2, segment);
        jpeg.extend_from_slice(b"canary behind the picture");
        let (kept, _) = rewrite(&jpeg, "image/jpeg").unwrap();
        assert!(!kept.windows(6).any(|window| window == b"canary"));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
        })
    }
}
