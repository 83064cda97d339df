//! Arguments of bpf(2): the members of `union bpf_attr` in use, in the layout of include/uapi/linux/bpf.h.
//!
//! Own structs instead of aya's generated union, so that building an argument needs no unsafe and bytes that a command
//! does not know stay zero, which the kernel requires.

/// `BPF_MAP_CREATE`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct MapCreate {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
}

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM`, `BPF_MAP_DELETE_ELEM`, `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, `BPF_MAP_FREEZE`, and
/// `BPF_MAP_GET_NEXT_KEY`, whose next key is in the place of the value.
#[repr(C)]
#[derive(Debug, Default)]
pub struct MapElem {
    pub map_fd: u32,
    pub pad: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}

/// `BPF_MAP_LOOKUP_BATCH`, `BPF_MAP_LOOKUP_AND_DELETE_BATCH`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct MapBatch {
    pub in_batch: u64,
    pub out_batch: u64,
    pub keys: u64,
    pub values: u64,
    pub count: u32,
    pub map_fd: u32,
    pub elem_flags: u64,
    pub flags: u64,
}

/// Head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RawMapInfo {
    pub map_type: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
}

/// `BPF_PROG_LOAD` up to the expected attach type.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProgLoad {
    pub prog_type: u32,
    pub insn_cnt: u32,
    pub insns: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log_buf: u64,
    pub kern_version: u32,
    pub prog_flags: u32,
    pub prog_name: [u8; 16],
    pub prog_ifindex: u32,
    pub expected_attach_type: u32,
}

/// `BPF_PROG_LOAD` up to what a tracing program is attached to.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProgLoadTracing {
    pub head: ProgLoad,
    pub prog_btf_fd: u32,
    pub func_info_rec_size: u32,
    pub func_info: u64,
    pub func_info_cnt: u32,
    pub line_info_rec_size: u32,
    pub line_info: u64,
    pub line_info_cnt: u32,
    pub attach_btf_id: u32,
    pub attach_btf_obj_fd: u32,
    pub pad: u32,
}

/// `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RawTracepoint {
    pub name: u64,
    pub prog_fd: u32,
    pub pad: u32,
}

/// `BPF_ENABLE_STATS`; 0 is `BPF_STATS_RUN_TIME`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct EnableStats {
    pub kind: u32,
}

/// `struct bpf_btf_info`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct BtfInfo {
    pub btf: u64,
    pub btf_size: u32,
    pub id: u32,
    pub name: u64,
    pub name_len: u32,
    pub kernel_btf: u32,
}

/// `BPF_OBJ_PIN`, `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Obj {
    pub pathname: u64,
    pub bpf_fd: u32,
    pub file_flags: u32,
}

/// `BPF_PROG_ATTACH`, `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProgAttach {
    pub target_ifindex: u32,
    pub attach_bpf_fd: u32,
    pub attach_type: u32,
    pub attach_flags: u32,
    pub replace_bpf_fd: u32,
    pub relative: u32,
    pub expected_revision: u64,
}

/// `BPF_PROG_TEST_RUN` up to the context.
#[repr(C)]
#[derive(Debug, Default)]
pub struct TestRun {
    pub prog_fd: u32,
    pub retval: u32,
    pub data_size_in: u32,
    pub data_size_out: u32,
    pub data_in: u64,
    pub data_out: u64,
    pub repeat: u32,
    pub duration: u32,
    pub ctx_size_in: u32,
    pub ctx_size_out: u32,
    pub ctx_in: u64,
    pub ctx_out: u64,
}

/// `BPF_LINK_CREATE` on a device.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LinkCreate {
    pub prog_fd: u32,
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub flags: u32,
    pub relative: u32,
    pub pad: u32,
    pub expected_revision: u64,
}

/// `BPF_LINK_UPDATE`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LinkUpdate {
    pub link_fd: u32,
    pub new_prog_fd: u32,
    pub flags: u32,
    pub old_prog_fd: u32,
}

/// `BPF_LINK_DETACH`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct LinkDetach {
    pub link_fd: u32,
}

/// `BPF_PROG_QUERY` on a device.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProgQuery {
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub query_flags: u32,
    pub attach_flags: u32,
    pub prog_ids: u64,
    pub count: u32,
    pub pad: u32,
    pub prog_attach_flags: u64,
    pub link_ids: u64,
    pub link_attach_flags: u64,
    pub revision: u64,
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ObjInfo {
    pub bpf_fd: u32,
    pub info_len: u32,
    pub info: u64,
}

/// `BPF_{PROG,MAP,LINK}_GET_NEXT_ID`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct NextId {
    pub start_id: u32,
    pub next_id: u32,
    pub open_flags: u32,
}

/// Head of `struct bpf_prog_info`; the kernel fills as much as there is room for.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProgInfo {
    pub prog_type: u32,
    pub id: u32,
    pub tag: [u8; 8],
}

/// `struct bpf_prog_info` up to how often the program ran.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ProgRunInfo {
    pub prog_type: u32,
    pub id: u32,
    pub tag: [u8; 8],
    pub lengths: [u32; 2],
    pub code: [u64; 2],
    pub load_time: u64,
    pub created_by_uid: u32,
    pub nr_map_ids: u32,
    pub map_ids: u64,
    pub name: [u8; 16],
    pub ifindex: u32,
    pub gpl_compatible: u32,
    pub netns: [u64; 2],
    pub functions: [u32; 2],
    pub function_addresses: [u64; 2],
    pub btf_id: u32,
    pub func_info_rec_size: u32,
    pub func_info: u64,
    pub infos: [u32; 2],
    pub lines: [u64; 2],
    pub sizes: [u32; 4],
    pub prog_tags: u64,
    pub run_time_ns: u64,
    pub run_cnt: u64,
    pub recursion_misses: u64,
}

/// `struct bpf_link_info` of a tcx or netkit link.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RawLinkInfo {
    pub link_type: u32,
    pub id: u32,
    pub prog_id: u32,
    pub pad: u32,
    pub ifindex: u32,
    pub attach_type: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya_obj::generated as uapi;
    use std::mem::{offset_of, size_of};

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(offset_of!(LinkCreate, attach_type), 8);
        assert_eq!(offset_of!(LinkCreate, relative), 16);
        assert_eq!(offset_of!(LinkCreate, expected_revision), 24);
        assert_eq!(offset_of!(ProgAttach, replace_bpf_fd), 16);
        assert_eq!(offset_of!(ProgAttach, relative), 20);
        assert_eq!(offset_of!(ProgAttach, expected_revision), 24);
        assert_eq!(offset_of!(ProgQuery, prog_ids), 16);
        assert_eq!(offset_of!(ProgQuery, count), 24);
        assert_eq!(offset_of!(ProgQuery, link_ids), 40);
        assert_eq!(offset_of!(ProgQuery, revision), 56);
        assert_eq!(
            offset_of!(ProgLoad, expected_attach_type),
            offset_of!(uapi::bpf_attr__bindgen_ty_4, expected_attach_type)
        );
        assert_eq!(offset_of!(ProgLoad, prog_name), offset_of!(uapi::bpf_attr__bindgen_ty_4, prog_name));
        assert_eq!(offset_of!(TestRun, data_in), offset_of!(uapi::bpf_attr__bindgen_ty_7, data_in));
        assert_eq!(offset_of!(TestRun, repeat), offset_of!(uapi::bpf_attr__bindgen_ty_7, repeat));
        assert_eq!(offset_of!(TestRun, ctx_out), offset_of!(uapi::bpf_attr__bindgen_ty_7, ctx_out));
        assert_eq!(offset_of!(MapElem, value), 16);
        assert_eq!(offset_of!(MapElem, flags), offset_of!(uapi::bpf_attr__bindgen_ty_2, flags));
        assert_eq!(offset_of!(MapCreate, map_flags), offset_of!(uapi::bpf_attr__bindgen_ty_1, map_flags));
        assert_eq!(offset_of!(MapBatch, map_fd), offset_of!(uapi::bpf_attr__bindgen_ty_3, map_fd));
        assert_eq!(offset_of!(MapBatch, flags), offset_of!(uapi::bpf_attr__bindgen_ty_3, flags));
        assert_eq!(offset_of!(RawMapInfo, map_flags), offset_of!(uapi::bpf_map_info, map_flags));
        assert_eq!(offset_of!(ProgRunInfo, map_ids), offset_of!(uapi::bpf_prog_info, map_ids));
        assert_eq!(offset_of!(RawLinkInfo, ifindex), offset_of!(uapi::bpf_link_info, __bindgen_anon_1));
        assert_eq!(offset_of!(ProgInfo, id), offset_of!(uapi::bpf_prog_info, id));
        let load = |at| at - offset_of!(ProgLoadTracing, head);
        assert_eq!(
            load(offset_of!(ProgLoadTracing, attach_btf_id)),
            offset_of!(uapi::bpf_attr__bindgen_ty_4, attach_btf_id)
        );
        assert_eq!(
            load(offset_of!(ProgLoadTracing, prog_btf_fd)),
            offset_of!(uapi::bpf_attr__bindgen_ty_4, prog_btf_fd)
        );
        assert_eq!(load(offset_of!(ProgLoadTracing, attach_btf_obj_fd)), 112);
        assert_eq!(size_of::<BtfInfo>(), 32);
        assert_eq!(offset_of!(ProgRunInfo, name), offset_of!(uapi::bpf_prog_info, name));
        assert_eq!(offset_of!(ProgRunInfo, btf_id), offset_of!(uapi::bpf_prog_info, btf_id));
        assert_eq!(offset_of!(ProgRunInfo, run_time_ns), offset_of!(uapi::bpf_prog_info, run_time_ns));
        assert_eq!(offset_of!(ProgRunInfo, recursion_misses), offset_of!(uapi::bpf_prog_info, recursion_misses));
        assert_eq!(size_of::<LinkCreate>(), 32);
        assert_eq!(size_of::<ProgAttach>(), 32);
        assert_eq!(size_of::<ProgQuery>(), 64);
        assert_eq!(size_of::<ProgLoad>(), 72);
    }
}
