//! Module signatures (`scripts/sign-file.c`; `struct module_signature`, `include/linux/module_signature.h`).

/// Last bytes of a signed module.
const MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`; its last four bytes are the length of the signature before it, big endian.
const TRAILER: usize = 12;

/// Removes a module's signature; a module without one is returned unchanged.
pub fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    if let Some(end) = end_of_module(&module) {
        module.truncate(end);
    }
    module
}

fn end_of_module(module: &[u8]) -> Option<usize> {
    let signed = module.strip_suffix(MARK)?;
    let length = signed.last_chunk::<4>()?;
    signed.len().checked_sub(TRAILER)?.checked_sub(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_signature_is_removed() {
        let signed = |length: u32| [&b"\x7fELF body"[..], b"signature", &[0; 8], &length.to_be_bytes(), MARK].concat();
        assert_eq!(unsigned(signed(9)), b"\x7fELF body");
        assert_eq!(unsigned(signed(900)), signed(900), "longer than the file");
        assert_eq!(unsigned(b"\x7fELF".to_vec()), b"\x7fELF");
        assert_eq!(unsigned(MARK.to_vec()), MARK);
    }
}
