//! A kernel image that is read and never booted.

/// The release of the image.
#[allow(dead_code, reason = "not every test names it")]
pub const RELEASE: &str = "6.12.3-mine";

/// The smallest file that passes for a bzImage of [`RELEASE`] (Documentation/arch/x86/boot.rst).
pub fn image() -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x1F1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20E..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    let banner = format!("{RELEASE} (a@b) #1 SMP");
    image[0x300..0x300 + banner.len()].copy_from_slice(banner.as_bytes());
    image
}
