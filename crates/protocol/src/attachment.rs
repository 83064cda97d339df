//! Files in the report of a failed cell.

use serde::{Deserialize, Serialize};

/// One file. The host chooses its path; the name is only a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What the file shows: `topology`, or a node's name.
    pub name: String,
    /// Kind of the file.
    pub kind: AttachmentKind,
    /// Its content, base64 in the message.
    #[serde(with = "crate::bytes")]
    pub bytes: Vec<u8>,
}

/// Kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentKind {
    /// Plain text.
    Text,
    /// A drawing.
    Svg,
    /// Captured packets.
    Pcap,
}

impl AttachmentKind {
    /// The file name's extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Svg => "svg",
            Self::Pcap => "pcap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_is_transferred_unchanged() {
        let attachment = Attachment { name: "pod".into(), kind: AttachmentKind::Pcap, bytes: (0..=255).collect() };
        let text = serde_json::to_string(&attachment).unwrap();
        assert_eq!(serde_json::from_str::<Attachment>(&text).unwrap(), attachment);
        assert!(serde_json::from_str::<Attachment>(&text.replace("AAEC", "AA*C")).is_err());
    }
}
