//! Each format read back, what cannot be one, and files that nobody reads to their end.

use std::{
    io::{Cursor, Read},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use karat_lake::{
    arrow::{
        array::{
            ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, LargeStringArray,
            ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
        },
        compute::concat_batches,
        datatypes::Int32Type,
        ipc::reader::StreamReader,
    },
    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
};
use serde_json::Value;
use zip::ZipArchive;

use super::{
    answer::attachment,
    produce::Encoder,
    sink::Sink,
    xlsx::{Limits, Xlsx},
    *,
};

const FORMULAS: [&str; 6] = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1"];

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// A value of each kind, its opposite, and nulls.
fn sample() -> RecordBatch {
    let text = StringArray::from(vec![Some("=1+1"), Some("say \"hi\", twice\r\nor so"), None]);
    let amount = Decimal128Array::from(vec![Some(123_456_789_012_345_678), Some(-1), None]);
    let at = TimestampMicrosecondArray::from(vec![Some(1_769_896_800_000_000), Some(-1), None]);
    batch(vec![
        ("text", Arc::new(text)),
        ("whole", Arc::new(Int64Array::from(vec![Some(-5), Some(9_007_199_254_740_993), None]))),
        ("amount", Arc::new(amount.with_precision_and_scale(20, 4).unwrap())),
        ("ratio", Arc::new(Float64Array::from(vec![Some(0.1), Some(-2.5), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(20_484), Some(-1), None]))),
        ("at", Arc::new(at.with_timezone("UTC"))),
    ])
}

fn rows(batches: Vec<RecordBatch>) -> Rows {
    Rows { schema: batches[0].schema(), batches: stream::iter(batches.into_iter().map(Ok)).boxed() }
}

/// The same rows again and again.
fn endless() -> Rows {
    let one = concat_batches(&sample().schema(), &vec![sample(); 100]).unwrap();
    Rows { schema: one.schema(), batches: stream::repeat(one).map(Ok).boxed() }
}

fn form(format: Format) -> Form {
    Form { format, has_mark: false }
}

fn exports(scratch: &Path) -> Exports {
    Exports::new(ExportSettings { scratch: scratch.join("scratch"), ..ExportSettings::default() })
}

async fn file_of(rows: Rows, form: Form) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    let download = exports.start(exports.place().unwrap(), rows, form).await.unwrap();
    download.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

fn part_of(spreadsheet: &[u8], name: &str) -> String {
    let mut archive = ZipArchive::new(Cursor::new(spreadsheet)).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn first_sheet(spreadsheet: &[u8]) -> String {
    part_of(spreadsheet, "xl/worksheets/sheet1.xml")
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_follows_rfc_4180_and_has_a_header_also_without_rows() {
    let csv = String::from_utf8(file_of(rows(vec![sample()]), form(Format::Csv)).await).unwrap();
    assert_eq!(
        csv,
        "text,whole,amount,ratio,flag,day,at\r\n\
         '=1+1,-5,12345678901234.5678,0.1,true,2026-01-31,2026-01-31T22:00:00Z\r\n\
         \"say \"\"hi\"\", twice\r\nor so\",9007199254740993,-0.0001,-2.5,false,1969-12-31,1969-12-31T23:59:59.999999Z\r\n\
         ,,,,,,\r\n"
    );
    let empty = file_of(rows(vec![sample().slice(0, 0)]), Form { format: Format::Csv, has_mark: true }).await;
    assert_eq!(String::from_utf8(empty).unwrap(), "\u{feff}text,whole,amount,ratio,flag,day,at\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_has_every_column_of_every_row_and_each_digit() {
    let ndjson = String::from_utf8(file_of(rows(vec![sample()]), form(Format::Ndjson)).await).unwrap();
    let lines: Vec<&str> = ndjson.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"text":"=1+1","whole":-5,"amount":12345678901234.5678,"ratio":0.1,"flag":true,"day":"2026-01-31","at":"2026-01-31T22:00:00Z"}"#
    );
    let second: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(second["text"], "say \"hi\", twice\r\nor so");
    assert_eq!(second["whole"], 9_007_199_254_740_993_i64);
    assert_eq!(second["at"], "1969-12-31T23:59:59.999999Z");
    let third: Value = serde_json::from_str(lines[2]).unwrap();
    assert!(third.as_object().unwrap().len() == 7 && third.as_object().unwrap().values().all(Value::is_null));
    assert_eq!(lines.len(), 3);
    assert!(file_of(rows(vec![sample().slice(0, 0)]), form(Format::Ndjson)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_and_arrow_give_back_what_was_written() {
    let batches: Vec<RecordBatch> = (0..100).map(|_| sample()).collect();
    let whole = concat_batches(&sample().schema(), &batches).unwrap();
    let bytes = Bytes::from(file_of(rows(batches.clone()), form(Format::Parquet)).await);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let codec = reader.metadata().row_group(0).column(0).compression();
    assert!(format!("{codec:?}").starts_with("ZSTD"), "{codec:?}");
    let read: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(concat_batches(&read[0].schema(), &read).unwrap().columns(), whole.columns());

    let bytes = file_of(rows(batches), form(Format::Arrow)).await;
    let reader = StreamReader::try_new(Cursor::new(bytes), None).unwrap();
    assert_eq!(reader.schema().fields(), whole.schema().fields());
    let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    assert_eq!(concat_batches(&read[0].schema(), &read).unwrap().columns(), whole.columns());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spreadsheet_has_real_dates_and_writes_numbers_as_text_that_it_would_round() {
    let spreadsheet = file_of(rows(vec![sample()]), form(Format::Xlsx)).await;
    let sheet = first_sheet(&spreadsheet);
    let has = |cell: &str| assert!(sheet.contains(cell), "{cell}: {sheet}");
    has("<v>-5</v>");
    has("<t>9007199254740993</t>");
    has("<t>12345678901234.5678</t>");
    has("<v>-0.0001</v>");
    has("<v>0.1</v>");
    // Days since 1899-12-30.
    has("<v>46053</v>");
    has(&format!("<v>{}</v>", 25_569.0 + 1_769_896_800_000_000_f64 / 86_400_000_000.0));
    has(r#"t="b"><v>1</v>"#);
    assert!(part_of(&spreadsheet, "xl/styles.xml").contains("yyyy-mm-dd hh:mm:ss.000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_forms_of_text_and_times_without_a_zone_are_written_alike() {
    let text: ArrayRef = Arc::new(LargeStringArray::from(vec!["=1"]));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    let odd = batch(vec![("text", text), ("at", at)]);
    let csv = file_of(rows(vec![odd.clone()]), form(Format::Csv)).await;
    assert_eq!(String::from_utf8(csv).unwrap(), "text,at\r\n'=1,1970-01-01T00:00:00Z\r\n");
    let ndjson = file_of(rows(vec![odd]), form(Format::Ndjson)).await;
    assert_eq!(String::from_utf8(ndjson).unwrap(), "{\"text\":\"=1\",\"at\":\"1970-01-01T00:00:00Z\"}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_66_no_text_is_a_formula_in_csv_or_a_spreadsheet_and_numbers_stay_numbers() {
    let texts: ArrayRef = Arc::new(StringArray::from(FORMULAS.to_vec()));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![-1; FORMULAS.len()]));
    let dangerous = batch(vec![("=HYPERLINK(1)", texts), ("-number", numbers)]);
    let csv = String::from_utf8(file_of(rows(vec![dangerous.clone()]), form(Format::Csv)).await).unwrap();
    assert_eq!(
        csv,
        "'=HYPERLINK(1),'-number\r\n'=1+1,-1\r\n'+1,-1\r\n'-1+2,-1\r\n'@SUM(A1),-1\r\n'\t=1,-1\r\n\"'\r=1\",-1\r\n"
    );

    let spreadsheet = file_of(rows(vec![dangerous]), form(Format::Xlsx)).await;
    let sheet = first_sheet(&spreadsheet);
    assert!(!sheet.contains("<f>"), "{sheet}");
    let cells: Vec<&str> = sheet.split("<c ").skip(1).collect();
    assert_eq!(cells.len(), 2 + 2 * FORMULAS.len(), "{sheet}");
    for cell in &cells {
        // Texts have the style that says so; the numbers have none.
        let is_text = cell.contains(r#"t="inlineStr""#);
        assert_eq!(is_text, cell.contains(" s=\""), "{cell}");
        assert!(is_text || cell.contains("<v>-1</v>"), "{cell}");
    }
    assert!(part_of(&spreadsheet, "xl/styles.xml").contains("quotePrefix=\"1\""));
}

#[test]
fn security_66_the_name_of_a_file_holds_nothing_that_leads_elsewhere() {
    let name = |text: &str| attachment(text, "csv");
    assert_eq!(name("runs-a b"), "attachment; filename=\"runs-a b.csv\"; filename*=UTF-8''runs-a%20b.csv");
    assert_eq!(name("caf\u{e9}"), "attachment; filename=\"caf_.csv\"; filename*=UTF-8''caf%C3%A9.csv");
    for (text, kept) in [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("a\"; filename=\"b.exe", "a__ filename__b.exe"),
        ("a\r\nSet-Cookie: x=1", "a__Set-Cookie_ x_1"),
        ("C:\\con|<>?*", "C__con_____"),
        ("gpj\u{202e}exe", "gpj_exe"),
        ("..", "export"),
        ("", "export"),
    ] {
        let header = name(text);
        assert!(header.starts_with(&format!("attachment; filename=\"{kept}.csv\"; ")), "{text:?}: {header}");
        assert!(header.bytes().all(|byte| (32..127).contains(&byte)), "{header}");
    }
    assert!(name(&"\u{1f600}\u{4e00}".repeat(500)).len() < 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_to_a_next_sheet_and_beyond_the_last_parquet_is_named() {
    let limits = Limits { sheet_rows: 4, sheets: 2, sheet_bytes: 1 << 20, scratch_bytes: 1 << 20 };
    let write = async |num_batches: usize, limits: Limits| {
        let (sender, pieces) = mpsc::channel(1000);
        let sink = Sink::new(sender, Handle::current(), Instant::now() + Duration::from_secs(60));
        let written = tokio::task::spawn_blocking(move || {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = Box::new(Xlsx::new(sink, &sample().schema(), folder.path(), limits)?);
            for _ in 0..num_batches {
                writer.write(&sample())?;
            }
            writer.finish()?.close().map_err(ApiError::internal)
        });
        written.await.unwrap().map(|()| pieces)
    };
    let pieces = write(2, limits).await.unwrap();
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        match pieces.recv().await {
            Some(download::Piece::Bytes(bytes)) => Some((bytes, pieces)),
            _ => None,
        }
    });
    let spreadsheet = pieces.collect::<Vec<Bytes>>().await.concat();
    let second = part_of(&spreadsheet, "xl/worksheets/sheet2.xml");
    // The fifth row is the second of the sample.
    assert!(second.contains("<t>text</t>") && second.contains("<t>9007199254740993</t>"), "{second}");
    assert!(!second.contains("<v>-5</v>") && first_sheet(&spreadsheet).contains("<v>-5</v>"), "{second}");

    let small = Limits { scratch_bytes: 500, ..limits };
    for (num_batches, limits) in [(3, limits), (2, small)] {
        let refused = write(num_batches, limits).await.err().unwrap();
        assert_eq!(refused.status().as_u16(), 422);
        assert!(format!("{refused:?}").contains("validation_error"), "{refused:?}");
    }
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(40_000)]));
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    let rows = rows(vec![batch(vec![("long", long)])]);
    let refused = exports.start(exports.place().unwrap(), rows, form(Format::Xlsx)).await.err().unwrap();
    assert_eq!((refused.status().as_u16(), refused.code()), (422, "validation_error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_with_parts_do_not_go_into_cells() {
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), Some(2)])]);
    let nested = batch(vec![("list", Arc::new(list))]);
    for format in [Format::Csv, Format::Xlsx] {
        let refused = exports.start(exports.place().unwrap(), rows(vec![nested.clone()]), form(format)).await;
        assert_eq!(refused.err().unwrap().status().as_u16(), 422, "{format:?}");
    }
    let ndjson = file_of(rows(vec![nested]), form(Format::Ndjson)).await;
    assert_eq!(String::from_utf8(ndjson).unwrap(), "{\"list\":[1,2]}\n");
}

async fn all_places_are_free(exports: &Exports) {
    let free = async {
        while exports.free_places() < ExportSettings::default().at_a_time {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), free).await.expect("a place was not given back in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_gives_its_place_back_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    for (_, format) in Format::ALL {
        if format == Format::Xlsx {
            // It has no bytes before its end: its client leaves while it waits.
            assert!(exports.start(exports.place().unwrap(), endless(), form(format)).now_or_never().is_none());
        } else {
            let mut download = exports.start(exports.place().unwrap(), endless(), form(format)).await.unwrap();
            assert!(!download.next().await.unwrap().unwrap().is_empty(), "{format:?}");
            drop(download);
        }
        all_places_are_free(&exports).await;
    }
    // Also when there are no rows yet.
    let waiting = Rows { schema: sample().schema(), batches: stream::pending().boxed() };
    assert!(exports.start(exports.place().unwrap(), waiting, form(Format::Csv)).now_or_never().is_none());
    all_places_are_free(&exports).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_the_first_byte_is_an_error_and_a_later_one_breaks_the_file_off() {
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    let failure = || stream::once(async { Err(ApiError::unavailable("away", "it is away")) });
    let at_once = Rows { schema: sample().schema(), batches: failure().boxed() };
    let refused = exports.start(exports.place().unwrap(), at_once, form(Format::Csv)).await.err().unwrap();
    assert_eq!((refused.status().as_u16(), refused.code()), (503, "away"));

    let many = stream::iter((0..5000).map(|_| Ok(sample())));
    let later = Rows { schema: sample().schema(), batches: many.chain(failure()).boxed() };
    let mut download = exports.start(exports.place().unwrap(), later, form(Format::Csv)).await.unwrap();
    let mut bytes = 0;
    let broken = loop {
        match download.next().await.expect("the file ended as if it were whole") {
            Ok(piece) => bytes += piece.len(),
            Err(error) => break error,
        }
    };
    assert!(bytes > 0 && !broken.to_string().contains("away"), "{broken}");
    assert!(download.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_a_deadline_and_so_many_are_made_at_a_time() {
    let settings = ExportSettings { at_a_time: 1, deadline: Duration::from_millis(50), ..ExportSettings::default() };
    let exports = Exports::new(settings);
    let place = exports.place().unwrap();
    let busy = exports.place().err().unwrap();
    assert_eq!((busy.status().as_u16(), busy.code()), (503, "exports_busy"));
    let waiting = Rows { schema: sample().schema(), batches: stream::pending().boxed() };
    let late = exports.start(place, waiting, form(Format::Csv)).await.err().unwrap();
    assert_eq!((late.status().as_u16(), late.code()), (504, "deadline_exceeded"));

    // A client that reads the beginning and then nothing.
    let exports = Exports::new(ExportSettings { deadline: Duration::from_secs(2), ..ExportSettings::default() });
    let mut download = exports.start(exports.place().unwrap(), endless(), form(Format::Csv)).await.unwrap();
    all_places_are_free(&exports).await;
    let last = loop {
        match download.next().await {
            Some(Ok(_)) => {}
            last => break last,
        }
    };
    assert!(last.unwrap().is_err());
}
