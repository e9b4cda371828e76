//! The public key of a passkey: COSE (RFC 9052) in, yes or no out.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ciborium::Value;

use super::fault::Fault;

/// The kinds of signatures that are known here, by their numbers in COSE, the one that is liked best first: ECDSA on P-256 with
/// SHA-256, Ed25519, RSA PKCS #1 with SHA-256. Windows Hello has only the last.
pub const ALGORITHMS: [i64; 3] = [ES256, EDDSA, RS256];
const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

/// Labels of a COSE key. The others have a meaning by the kind of key.
const KIND: i64 = 1;
const ALGORITHM: i64 = 3;
const CURVE_OR_MODULUS: i64 = -1;
const X_OR_EXPONENT: i64 = -2;
const Y: i64 = -3;

/// Deeper than this nothing of an authenticator is nested.
const DEEPEST: usize = 8;

/// A key that signatures can be checked with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// The uncompressed point.
    Es256(Vec<u8>),
    Ed25519(Vec<u8>),
    Rs256 {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// Takes a COSE key from the front of what is left.
    pub(super) fn read(rest: &mut &[u8]) -> Result<Self, Fault> {
        let map = read_map(rest)?;
        let find = |label: i64| map.iter().find(|(key, _)| key.as_integer() == Some(label.into())).map(|(_, of)| of);
        let number = |label: i64| find(label).and_then(Value::as_integer).and_then(|number| i64::try_from(number).ok());
        let bytes = |label: i64| find(label).and_then(Value::as_bytes).ok_or(Fault::Key);
        match (number(KIND), number(ALGORITHM), number(CURVE_OR_MODULUS)) {
            (Some(2), Some(ES256), Some(1)) => {
                let (x, y) = (bytes(X_OR_EXPONENT)?.as_slice(), bytes(Y)?.as_slice());
                if x.len() != 32 || y.len() != 32 {
                    return Err(Fault::Key);
                }
                Ok(Self::Es256([&[4_u8][..], x, y].concat()))
            }
            (Some(1), Some(EDDSA), Some(6)) => {
                let key = bytes(X_OR_EXPONENT)?;
                if key.len() == 32 { Ok(Self::Ed25519(key.clone())) } else { Err(Fault::Key) }
            }
            (Some(3), Some(RS256), None) => {
                let (modulus, exponent) = (bytes(CURVE_OR_MODULUS)?.clone(), bytes(X_OR_EXPONENT)?.clone());
                // 2048 to 4096 bits.
                let fits = (256..=512).contains(&modulus.len()) && (1..=8).contains(&exponent.len());
                if fits { Ok(Self::Rs256 { modulus, exponent }) } else { Err(Fault::Key) }
            }
            _ => Err(Fault::Key),
        }
    }

    /// Whether the key signed the message.
    pub(super) fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), Fault> {
        let checked = match self {
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature),
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::Rs256 { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
        };
        checked.map_err(|_| Fault::Signature)
    }
}

/// Takes a map of CBOR from the front of what is left.
pub(super) fn read_map(rest: &mut &[u8]) -> Result<Vec<(Value, Value)>, Fault> {
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(&mut *rest, DEEPEST).map_err(|_| Fault::Malformed)?;
    value.into_map().map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kind key signature`, made by another implementation (pyca/cryptography 48).
    const SIGNATURES: &str = include_str!("signatures.txt");
    const MESSAGE: &[u8] = b"what an authenticator signs";

    #[test]
    fn signatures_of_every_kind_of_key_by_another_implementation_hold_and_no_bit_of_them_can_change() {
        let mut kinds = Vec::new();
        for line in SIGNATURES.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (encoded, signature) = (hex::decode(fields[1]).unwrap(), hex::decode(fields[2]).unwrap());
            kinds.push(fields[0]);
            let mut rest = encoded.as_slice();
            let key = PublicKey::read(&mut rest).unwrap();
            assert!(rest.is_empty(), "{}", fields[0]);
            assert_eq!(key.check(MESSAGE, &signature), Ok(()), "{}", fields[0]);
            assert_eq!(key.check(b"What an authenticator signs", &signature), Err(Fault::Signature), "{}", fields[0]);
            for at in 0..signature.len() {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert_eq!(key.check(MESSAGE, &changed), Err(Fault::Signature), "{} at {at}", fields[0]);
            }
            for end in 0..encoded.len() {
                assert_eq!(PublicKey::read(&mut &encoded[..end]), Err(Fault::Malformed), "{} up to {end}", fields[0]);
            }
        }
        assert_eq!(kinds, ["ES256", "EDDSA", "RS256"]);
    }

    #[test]
    fn other_kinds_of_keys_and_of_cbor_are_refused() {
        for (what, encoded, fault) in [
            ("no map", "80", Fault::Malformed),
            ("an empty map", "a0", Fault::Key),
            ("ES384", "a3010203382220 02", Fault::Key),
            ("ES256 without a point", "a3010203262001", Fault::Key),
            ("ES256 with a short point", "a50102032620012142000122420001", Fault::Key),
            ("Ed25519 with a short key", "a401010327200621420001", Fault::Key),
            ("RSA of 16 bits", "a40103033901002042c35121430100 01", Fault::Key),
            ("a length that is not there", "a1015affffffff", Fault::Malformed),
            ("what never ends", "8181818181818181818181818181", Fault::Malformed),
        ] {
            let bytes = hex::decode(encoded.replace(' ', "")).unwrap();
            assert_eq!(PublicKey::read(&mut bytes.as_slice()), Err(fault), "{what}");
        }
    }
}
