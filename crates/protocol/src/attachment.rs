//! Files that a failed cell leaves with its report.

use serde::{Deserialize, Serialize};

/// One file. The host gives it a path of its own making: the name is only a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What it shows: `topology`, a node's name.
    pub name: String,
    /// What it is.
    pub kind: AttachmentKind,
    /// Its content, base64 on the wire.
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
    /// The file name's end.
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
    fn any_byte_survives_the_wire() {
        let attachment = Attachment { name: "pod".into(), kind: AttachmentKind::Pcap, bytes: (0..=255).collect() };
        let text = serde_json::to_string(&attachment).unwrap();
        assert_eq!(serde_json::from_str::<Attachment>(&text).unwrap(), attachment);
        assert!(serde_json::from_str::<Attachment>(&text.replace("AAEC", "AA*C")).is_err());
    }
}
