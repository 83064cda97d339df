//! The program's settings. The loader writes them into `.rodata` before the program is verified.

use lab_abi::Config;

#[unsafe(no_mangle)]
static CONFIG: Config = Config::new(0);

/// Reads one field. Volatile, for the compiler would otherwise fold in the value that it sees above.
macro_rules! field {
    ($name:ident: $type:ty) => {
        #[inline(always)]
        pub fn $name() -> $type {
            // SAFETY: a reference to a static is valid and aligned.
            unsafe { core::ptr::read_volatile(&raw const CONFIG.$name) }
        }
    };
}

field!(redirect_flags: u64);
field!(host_ifindex: u32);
field!(target_ifindex: u32);
field!(verdict: i32);
field!(jump_index: u32);
field!(marker: u16);
field!(eth_dst: [u8; 6]);
field!(mtu_len_diff: i32);
field!(tunnel_id: u32);
field!(tunnel_remote: [u32; 4]);
field!(socket_port: u32);
field!(number: u32);
