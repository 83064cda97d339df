//! Bytes that are text nearly always: arguments, variables, paths.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;

/// Any bytes. As JSON they are a string where they are UTF-8, else an object with base64: reports stay readable, and nothing is
/// lost.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes for people: what is no UTF-8 is replaced.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl<T: AsRef<[u8]>> From<T> for Raw {
    fn from(bytes: T) -> Self {
        Self(bytes.as_ref().to_vec())
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Written::Bytes { base64: BASE64_STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self(text.into_bytes())),
            Written::Bytes { base64 } => BASE64_STANDARD.decode(base64).map(Self).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_readable_and_any_byte_survives() {
        let json = |raw: &Raw| serde_json::to_string(raw).unwrap();
        assert_eq!(json(&Raw::from("uname")), "\"uname\"");
        for bytes in [&b""[..], b"a\0\n\"\\", &[0xff, 0xfe, b'x'], &(0..=255).collect::<Vec<u8>>()] {
            let raw = Raw::from(bytes);
            assert_eq!(serde_json::from_str::<Raw>(&json(&raw)).unwrap(), raw);
        }
        assert!(serde_json::from_str::<Raw>("{\"base64\":\"*\"}").is_err());
    }
}
