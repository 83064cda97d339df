//! The setup header of an x86 bzImage (`Documentation/arch/x86/boot.rst`; `struct setup_header`,
//! `arch/x86/include/uapi/asm/bootparam.h`).

/// Bytes of a sector; the setup code counts in them.
const SECTOR: usize = 512;

/// A bzImage whose header has the magic number.
#[derive(Debug, Clone, Copy)]
pub struct SetupHeader<'a> {
    image: &'a [u8],
}

impl<'a> SetupHeader<'a> {
    /// The header of an image; `None` without `HdrS` at 0x202.
    pub fn of(image: &'a [u8]) -> Option<Self> {
        (image.get(0x202..0x206)? == b"HdrS").then_some(Self { image })
    }

    fn half(&self, at: usize) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(self.image.get(at..at + 2)?.try_into().ok()?)))
    }

    fn word(&self, at: usize) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.image.get(at..at + 4)?.try_into().ok()?)).ok()
    }

    /// Size of boot sector and setup code, bytes: `setup_sects` at 0x1F1 is the number of sectors after the first one, and 0
    /// means 4 for compatibility with very old kernels.
    fn setup_bytes(&self) -> Option<usize> {
        let sectors = match usize::from(*self.image.get(0x1F1)?) {
            0 => 4,
            sectors => sectors,
        };
        Some((sectors + 1) * SECTOR)
    }

    /// Length of the whole image by its header, bytes: `syssize` at 0x1F4 is the size of what follows the setup code in units of
    /// 16 bytes. A signature may follow.
    pub fn length(&self) -> Option<u64> {
        Some(self.setup_bytes()? as u64 + self.word(0x1F4)? as u64 * 16)
    }

    /// The text behind `kernel_version` at 0x20E, an offset minus 0x200: `uname -r`, builder and `uname -v`.
    pub fn version(&self) -> Option<&'a str> {
        let rest = self.image.get(self.half(0x20E)? + 0x200..)?;
        std::str::from_utf8(rest.get(..rest.iter().position(|&byte| byte == 0)?)?).ok()
    }

    /// The compressed kernel: `payload_offset` and `payload_length` at 0x248, which protocol 2.08 (Linux 2.6.26) introduced.
    pub fn payload(&self) -> Option<&'a [u8]> {
        if self.half(0x206)? < 0x208 {
            return None;
        }
        let begin = self.setup_bytes()?.checked_add(self.word(0x248)?)?;
        self.image.get(begin..begin.checked_add(self.word(0x24C)?)?)
    }
}
