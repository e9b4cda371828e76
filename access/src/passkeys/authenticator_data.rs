//! What an authenticator says of itself and of its user, signed by the passkey (WebAuthn level 3, 6.1).

use super::fault::Fault;
use super::public_key::{PublicKey, read_map};
use super::relying_party::RelyingParty;
use crate::store::Said;

/// Somebody touched it.
const PRESENT: u8 = 1;
/// It checked who that was: by a PIN, a finger, a face.
const VERIFIED: u8 = 1 << 2;
/// The passkey may be copied to other devices of its user.
const CAN_BE_COPIED: u8 = 1 << 3;
/// It is.
const IS_COPIED: u8 = 1 << 4;
/// A new credential follows.
const ATTESTED: u8 = 1 << 6;
/// Extensions follow.
const EXTENSIONS: u8 = 1 << 7;

/// The longest id that a credential may have.
const LONGEST_ID: usize = 1023;
/// The longest key that is kept, in bytes of COSE. Those of RSA with 4096 bits have 540 or so; what else is in one is nothing
/// that is needed here.
const LONGEST_KEY: usize = 700;

/// What was signed, taken apart.
pub(super) struct AuthenticatorData {
    party: [u8; 32],
    is_present: bool,
    /// Whether the authenticator checked who its user is.
    pub(super) is_verified: bool,
    /// A count that grows with each signature, which some authenticators leave at zero, and what there is of copies.
    pub(super) said: Said,
    /// What a registration brings.
    pub(super) credential: Option<NewCredential>,
}

/// A credential that was just made.
pub(super) struct NewCredential {
    pub(super) id: Vec<u8>,
    /// In COSE, as it was sent.
    pub(super) public_key: Vec<u8>,
}

impl AuthenticatorData {
    /// Takes it apart; what is left over is not overlooked.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let (party, rest) = bytes.split_first_chunk::<32>().ok_or(Fault::Malformed)?;
        let (&flags, rest) = rest.split_first().ok_or(Fault::Malformed)?;
        let (count, mut rest) = rest.split_first_chunk::<4>().ok_or(Fault::Malformed)?;
        if flags & (CAN_BE_COPIED | IS_COPIED) == IS_COPIED {
            return Err(Fault::Malformed);
        }
        let credential = if flags & ATTESTED == 0 { None } else { Some(NewCredential::read(&mut rest)?) };
        if flags & EXTENSIONS != 0 {
            read_map(&mut rest)?;
        }
        if !rest.is_empty() {
            return Err(Fault::Malformed);
        }
        Ok(Self {
            party: *party,
            is_present: flags & PRESENT != 0,
            is_verified: flags & VERIFIED != 0,
            said: Said {
                count: u32::from_be_bytes(*count),
                is_backup_eligible: flags & CAN_BE_COPIED != 0,
                is_backed_up: flags & IS_COPIED != 0,
            },
            credential,
        })
    }

    /// The same, out of what a registration sends around it. The statement on the make of the authenticator is not looked at:
    /// none is asked for, and any make is welcome.
    pub(super) fn read_attestation(mut bytes: &[u8]) -> Result<Self, Fault> {
        let map = read_map(&mut bytes)?;
        let data = map.iter().find(|(key, _)| key.as_text() == Some("authData")).and_then(|(_, data)| data.as_bytes());
        if !bytes.is_empty() {
            return Err(Fault::Malformed);
        }
        Self::read(data.ok_or(Fault::Malformed)?)
    }

    /// Whether it is for this instance, somebody was there, and, where that is needed, it was checked who.
    pub(super) fn check(&self, party: &RelyingParty, needs_verification: bool) -> Result<(), Fault> {
        if self.party != party.hash() {
            Err(Fault::RelyingParty)
        } else if !self.is_present {
            Err(Fault::Presence)
        } else if needs_verification && !self.is_verified {
            Err(Fault::Verification)
        } else {
            Ok(())
        }
    }
}

impl NewCredential {
    fn read(rest: &mut &[u8]) -> Result<Self, Fault> {
        let all: &[u8] = rest;
        let (_model, after) = all.split_first_chunk::<16>().ok_or(Fault::Malformed)?;
        let (length, after) = after.split_first_chunk::<2>().ok_or(Fault::Malformed)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 || length > LONGEST_ID {
            return Err(Fault::Malformed);
        }
        let (id, key) = after.split_at_checked(length).ok_or(Fault::Malformed)?;
        let mut after = key;
        // One that cannot be used is refused now, not at the first log-in.
        PublicKey::read(&mut after)?;
        let (public_key, _) = key.split_at_checked(key.len() - after.len()).ok_or(Fault::Malformed)?;
        if public_key.len() > LONGEST_KEY {
            return Err(Fault::Malformed);
        }
        *rest = after;
        Ok(Self { id: id.to_owned(), public_key: public_key.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key on P-256, for its form alone.
    fn key() -> Vec<u8> {
        let point = "11".repeat(32);
        hex::decode(format!("a5010203262001215820{point}225820{point}")).unwrap()
    }

    /// Data with these flags and what follows the counter.
    fn data(flags: u8, rest: &[u8]) -> Vec<u8> {
        let party = RelyingParty::at("https://karat.example.org").unwrap();
        [&party.hash()[..], &[flags, 0, 0, 1, 2], rest].concat()
    }

    fn credential() -> Vec<u8> {
        [&[0_u8; 16][..], &[0, 3, 7, 8, 9], &key()].concat()
    }

    #[test]
    fn what_an_authenticator_sends_is_read_and_nothing_is_left_over() {
        let party = RelyingParty::at("https://karat.example.org").unwrap();
        let plain = AuthenticatorData::read(&data(PRESENT | VERIFIED, &[])).unwrap();
        assert!(plain.is_verified && plain.credential.is_none());
        assert_eq!((plain.said.count, plain.check(&party, true)), (258, Ok(())));
        let extensions = hex::decode("a16b6372656450726f74656374 02".replace(' ', "")).unwrap();
        let with_both = [credential(), extensions.clone()].concat();
        let both = AuthenticatorData::read(&data(PRESENT | ATTESTED | EXTENSIONS, &with_both)).unwrap();
        let credential_of_both = both.credential.unwrap();
        assert_eq!((credential_of_both.id, credential_of_both.public_key), (vec![7, 8, 9], key()));
        AuthenticatorData::read(&data(PRESENT | EXTENSIONS, &extensions)).unwrap();
        for (flags, copies) in
            [(0, [false, false]), (CAN_BE_COPIED, [true, false]), (CAN_BE_COPIED | IS_COPIED, [true; 2])]
        {
            let said = AuthenticatorData::read(&data(PRESENT | flags, &[])).unwrap().said;
            assert_eq!([said.is_backup_eligible, said.is_backed_up], copies, "{flags}");
        }

        let whole = data(PRESENT | ATTESTED, &credential());
        for end in 0..whole.len() {
            assert!(matches!(AuthenticatorData::read(&whole[..end]), Err(Fault::Malformed)), "up to {end}");
        }
        let no_id = [&[0_u8; 16][..], &[0, 0], &key()].concat();
        let long_id = [&[0_u8; 16][..], &[4, 0], &[1; 1024], &key()].concat();
        // The same key with one more label, 2 (the id of the key), which holds 700 bytes.
        let long_key =
            [&[0_u8; 16][..], &[0, 3, 7, 8, 9, 0xa6], &key()[1..], &[2, 0x59, 0x02, 0xbc], &[0; 700]].concat();
        for (what, flags, rest) in [
            ("extensions that nothing announced", PRESENT, &extensions[..]),
            ("a credential that nothing announced", PRESENT, &credential()[..]),
            ("more than was announced", PRESENT | ATTESTED, &with_both[..]),
            ("no extensions", PRESENT | EXTENSIONS, &[][..]),
            ("an id without a byte", PRESENT | ATTESTED, &no_id[..]),
            ("an id of 1024 bytes", PRESENT | ATTESTED, &long_id[..]),
            ("a copy of what cannot be copied", PRESENT | IS_COPIED, &[][..]),
            ("a key that is longer than any", PRESENT | ATTESTED, &long_key[..]),
        ] {
            let refused = AuthenticatorData::read(&data(flags, rest));
            assert!(matches!(refused, Err(Fault::Malformed)), "{what}");
        }
    }

    #[test]
    fn who_was_there_and_for_which_host_is_asked() {
        let ours = RelyingParty::at("https://karat.example.org").unwrap();
        let other = RelyingParty::at("https://example.org").unwrap();
        let check = |flags: u8, party: &RelyingParty, needs_verification| {
            AuthenticatorData::read(&data(flags, &[])).unwrap().check(party, needs_verification)
        };
        assert_eq!(check(PRESENT, &ours, false), Ok(()));
        assert_eq!(check(PRESENT, &ours, true), Err(Fault::Verification));
        assert_eq!(check(VERIFIED, &ours, true), Err(Fault::Presence));
        assert_eq!(check(PRESENT | VERIFIED, &other, true), Err(Fault::RelyingParty));
    }
}
