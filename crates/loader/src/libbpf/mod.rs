//! libbpf itself. Every unsafe call of the loader that concerns it is here; [`maps`] has those about maps.

mod maps;

pub use maps::{Counter, InnerShape, KernelMap, ObjectMap, inner_map_of, pin_map};

use lab_check::VerifierStats;
use libbpf_sys as sys;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::{
    ffi::{CStr, CString, c_char, c_int},
    fs::File,
    io::{Read, Seek, SeekFrom},
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicI32, Ordering},
};

/// Level of the verifier's log: statistics and errors, without the instructions (`BPF_LOG_STATS`).
pub const STATISTICS: u32 = 4;
/// The same with the instructions (`BPF_LOG_LEVEL1`).
pub const INSTRUCTIONS: u32 = 5;
/// `enum bpf_prog_type`.
pub const SCHED_CLS: u32 = sys::BPF_PROG_TYPE_SCHED_CLS;
const BTF_KIND_DATASEC: u32 = 15;

/// Where libbpf's messages go.
static MESSAGES: AtomicI32 = AtomicI32::new(-1);

/// libbpf's version: `1.7`.
pub fn version() -> String {
    // SAFETY: take nothing, return numbers.
    let (major, minor) = unsafe { (sys::libbpf_major_version(), sys::libbpf_minor_version()) };
    format!("{major}.{minor}")
}

/// Has the kernel count how often programs run, for as long as the result lives.
pub fn count_runs() -> std::io::Result<OwnedFd> {
    // SAFETY: takes a number; the kernel just created the descriptor, nothing else owns it.
    let fd = unsafe { sys::bpf_enable_stats(sys::BPF_STATS_RUN_TIME) };
    // SAFETY: as above.
    owned(fd).map_err(|errno| std::io::Error::from_raw_os_error(-errno))
}

fn owned(fd: c_int) -> Result<OwnedFd, c_int> {
    // SAFETY: libbpf returns a descriptor that is the caller's, or a negative number.
    if fd < 0 { Err(fd) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

unsafe extern "C" fn print(
    level: sys::libbpf_print_level,
    format: *const c_char,
    arguments: *mut sys::__va_list_tag,
) -> c_int {
    let fd = MESSAGES.load(Ordering::Relaxed);
    if level > sys::LIBBPF_INFO || fd < 0 {
        return 0;
    }
    // SAFETY: libbpf's own format and arguments, passed on as they are, once.
    unsafe { sys::vdprintf(fd, format, arguments) }
}

/// libbpf's messages, in a file in memory: their number has no bound that a pipe would keep.
pub struct Messages(File);

impl Messages {
    /// Collects from now on. The last one that was made gets them.
    pub fn collect() -> std::io::Result<Self> {
        let fd = memfd_create(c"libbpf", MFdFlags::MFD_CLOEXEC)?;
        MESSAGES.store(fd.as_raw_fd(), Ordering::Relaxed);
        // SAFETY: a function of this type, which lives for ever.
        unsafe { sys::libbpf_set_print(Some(print)) };
        Ok(Self(File::from(fd)))
    }

    /// The lines so far.
    pub fn lines(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        // What can't be read back is missing from a message, and nowhere else.
        _ = self.0.seek(SeekFrom::Start(0)).and_then(|_| self.0.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        MESSAGES.store(-1, Ordering::Relaxed);
    }
}

/// An opened object. The kernel has its programs from [`Object::load`] on until this value goes.
pub struct Object<'a> {
    object: NonNull<sys::bpf_object>,
    /// The logs that libbpf holds addresses of.
    logs: Vec<(String, Vec<u8>)>,
    /// Its bytes, which libbpf reads in place.
    bytes: PhantomData<&'a [u8]>,
}

/// A program of an opened object.
#[derive(Clone, Copy)]
pub struct ObjectProgram<'a> {
    program: NonNull<sys::bpf_program>,
    object: PhantomData<&'a ()>,
}

fn text(bytes: *const c_char) -> String {
    if bytes.is_null() {
        return String::new();
    }
    // SAFETY: libbpf's strings end with a zero and live as long as the object, which the caller holds.
    unsafe { CStr::from_ptr(bytes) }.to_string_lossy().into_owned()
}

/// A name in one of the kernel's structures, which ends with a zero or with its room.
fn text_in(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name of a type of programs: `sched_cls`.
pub fn type_name(kind: u32) -> String {
    // SAFETY: takes a number, returns a constant or null.
    text(unsafe { sys::libbpf_bpf_prog_type_str(kind) })
}

/// The type of programs of that name.
pub fn type_named(name: &str) -> Option<u32> {
    (1..64).find(|kind| type_name(*kind) == name)
}

/// Whether the kernel has the type of programs. `None` where it can't be asked.
pub fn has_program_type(kind: u32) -> Option<bool> {
    // SAFETY: takes a number and no options.
    answer(unsafe { sys::libbpf_probe_bpf_prog_type(kind, ptr::null()) })
}

/// Whether the kernel has the type of maps.
pub fn has_map_type(kind: u32) -> Option<bool> {
    // SAFETY: takes a number and no options.
    answer(unsafe { sys::libbpf_probe_bpf_map_type(kind, ptr::null()) })
}

/// The name of a type of maps: `arena`.
pub fn map_type_name(kind: u32) -> String {
    // SAFETY: takes a number, returns a constant or null.
    text(unsafe { sys::libbpf_bpf_map_type_str(kind) })
}

/// The name of a type of attachment: `cgroup_unix_connect`.
pub fn attach_type_name(kind: u32) -> String {
    // SAFETY: takes a number, returns a constant or null.
    text(unsafe { sys::libbpf_bpf_attach_type_str(kind) })
}

const fn answer(found: c_int) -> Option<bool> {
    match found {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl<'a> Object<'a> {
    /// Opens an object. Maps that it pins by name go below `pins`.
    ///
    /// # Errors
    /// The errno, negative.
    pub fn open(bytes: &'a [u8], name: &str, pins: &str) -> Result<Self, i32> {
        let c_text = |text: &str| CString::new(text.replace('\0', "")).unwrap_or_default();
        let (name, pins) = (c_text(name), c_text(pins));
        let options = sys::bpf_object_open_opts {
            sz: size_of::<sys::bpf_object_open_opts>() as u64,
            object_name: name.as_ptr(),
            pin_root_path: pins.as_ptr(),
            ..Default::default()
        };
        // SAFETY: the bytes live for 'a, the strings until the call returns: libbpf copies them.
        let object =
            unsafe { sys::bpf_object__open_mem(bytes.as_ptr().cast(), bytes.len() as u64, &raw const options) };
        let errno = -nix::errno::Errno::last_raw();
        NonNull::new(object).map(|object| Self { object, logs: Vec::new(), bytes: PhantomData }).ok_or(if errno == 0 {
            -libc::EINVAL
        } else {
            errno
        })
    }

    /// Its programs.
    pub fn programs(&self) -> Vec<ObjectProgram<'_>> {
        let mut all = Vec::new();
        let mut last = ptr::null_mut();
        loop {
            // SAFETY: the object is open, and `last` is null or one of its programs.
            last = unsafe { sys::bpf_object__next_program(self.object.as_ptr(), last) };
            let Some(program) = NonNull::new(last) else { return all };
            all.push(ObjectProgram { program, object: PhantomData });
        }
    }

    /// Its maps.
    pub fn maps(&self) -> Vec<ObjectMap<'_>> {
        let mut all = Vec::new();
        let mut last = ptr::null_mut();
        loop {
            // SAFETY: the object is open, and `last` is null or one of its maps.
            last = unsafe { sys::bpf_object__next_map(self.object.as_ptr(), last) };
            let Some(map) = NonNull::new(last) else { return all };
            all.push(ObjectMap::of(map));
        }
    }

    /// Has the verifier write a log of each program that is loaded, of `size` bytes and the level that `level` says.
    pub fn log(&mut self, choose: impl Fn(&str) -> (u32, usize)) {
        let programs: Vec<_> = self.programs().iter().map(|it| (it.program, it.name())).collect();
        for (program, name) in programs {
            let (level, size) = choose(&name);
            let mut log = vec![0u8; size];
            // SAFETY: the program is the open object's; the log is kept until the object is closed, and a Vec's bytes stay in
            // place when the Vec moves.
            unsafe {
                sys::bpf_program__set_log_buf(program.as_ptr(), log.as_mut_ptr().cast(), log.len() as u64);
                sys::bpf_program__set_log_level(program.as_ptr(), level);
            }
            self.logs.push((name, log));
        }
    }

    /// What the verifier wrote of a program.
    pub fn log_of(&self, program: &str) -> String {
        let found = self.logs.iter().find(|(name, _)| name == program);
        let bytes = found.map(|(_, log)| log.split(|byte| *byte == 0).next().unwrap_or_default());
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    }

    /// The verifier's statistics of a program.
    pub fn stats(&self, program: &str) -> Option<VerifierStats> {
        VerifierStats::read(&self.log_of(program))
    }

    /// Loads it.
    ///
    /// # Errors
    /// The errno, negative.
    pub fn load(&mut self) -> Result<(), i32> {
        // SAFETY: the object is open and was not loaded.
        match unsafe { sys::bpf_object__load(self.object.as_ptr()) } {
            0 => Ok(()),
            error => Err(error),
        }
    }

    /// Sets a global variable before the load.
    ///
    /// # Errors
    /// There is no such variable, or it has another size: `Err(Some(size))`.
    pub fn set_global(&self, name: &str, value: &[u8]) -> Result<(), Option<usize>> {
        for map in self.maps() {
            let Some((offset, size)) = self.variable(map, name) else { continue };
            let mut length = 0u64;
            // SAFETY: the map is the open object's; the result is memory of `length` bytes, or null.
            let memory = unsafe { sys::bpf_map__initial_value(map.as_ptr(), &raw mut length) };
            if memory.is_null() || offset.saturating_add(size) as u64 > length {
                continue;
            }
            if value.len() > size {
                return Err(Some(size));
            }
            let mut whole = vec![0; size];
            whole[..value.len()].copy_from_slice(value);
            // SAFETY: within the memory, as compared above.
            unsafe { ptr::copy_nonoverlapping(whole.as_ptr(), memory.cast::<u8>().add(offset), size) };
            return Ok(());
        }
        Err(None)
    }

    /// Offset and size of a variable in the section that the map is made from, by the object's type information. The map's name does
    /// not tell the section: it begins with characters of the object's name, which may have dots (`internal_map_name`, libbpf.c).
    fn variable(&self, map: ObjectMap<'_>, name: &str) -> Option<(usize, usize)> {
        // SAFETY: the object is open; its type information lives as long as it, and every id that is asked for comes from there.
        unsafe {
            let btf = sys::bpf_object__btf(self.object.as_ptr());
            if btf.is_null() {
                return None;
            }
            let found = sys::btf__type_by_id(btf, sys::bpf_map__btf_value_type_id(map.as_ptr()));
            if found.is_null() || (*found).info >> 24 & 0x1f != BTF_KIND_DATASEC {
                return None;
            }
            let count = (*found).info & 0xffff;
            // The variables follow the section's type: type, offset, size.
            let variables = found.add(1).cast::<[u32; 3]>();
            for number in 0..count as usize {
                let [variable, offset, size] = variables.add(number).read_unaligned();
                let of = sys::btf__type_by_id(btf, variable);
                if !of.is_null() && text(sys::btf__name_by_offset(btf, (*of).name_off)) == name {
                    return Some((offset as usize, size as usize));
                }
            }
            None
        }
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        // SAFETY: nothing else closes it.
        unsafe { sys::bpf_object__close(self.object.as_ptr()) };
    }
}

impl ObjectProgram<'_> {
    pub fn name(&self) -> String {
        // SAFETY: the object is open.
        text(unsafe { sys::bpf_program__name(self.program.as_ptr()) })
    }

    pub fn section(&self) -> String {
        // SAFETY: the object is open.
        text(unsafe { sys::bpf_program__section_name(self.program.as_ptr()) })
    }

    /// `enum bpf_prog_type`, 0 where the section does not say.
    pub fn kind(&self) -> u32 {
        // SAFETY: the object is open.
        unsafe { sys::bpf_program__type(self.program.as_ptr()) }
    }

    /// `enum bpf_attach_type` that it is loaded for, 0 for most.
    pub fn attach_kind(&self) -> u32 {
        // SAFETY: the object is open.
        unsafe { sys::bpf_program__expected_attach_type(self.program.as_ptr()) }
    }

    /// Whether it is loaded with the object.
    pub fn is_wanted(&self) -> bool {
        // SAFETY: the object is open.
        unsafe { sys::bpf_program__autoload(self.program.as_ptr()) }
    }

    pub fn set_kind(&self, kind: u32) {
        // SAFETY: the object is open and not loaded, or libbpf refuses.
        unsafe { sys::bpf_program__set_type(self.program.as_ptr(), kind) };
    }

    pub fn set_wanted(&self, wanted: bool) {
        // SAFETY: as above.
        unsafe { sys::bpf_program__set_autoload(self.program.as_ptr(), wanted) };
    }

    /// Its descriptor, once it is loaded.
    pub fn fd(&self) -> Option<RawFd> {
        // SAFETY: the object is open.
        let fd = unsafe { sys::bpf_program__fd(self.program.as_ptr()) };
        (fd >= 0).then_some(fd)
    }
}

impl AsFd for ObjectProgram<'_> {
    /// # Panics
    /// Where it is not loaded.
    fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd().unwrap_or_else(|| panic!("{} is not loaded", self.name()));
        // SAFETY: libbpf keeps the descriptor open as long as the object, which `self` borrows.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }
}

/// A program that is pinned.
///
/// # Errors
/// The errno, negative.
pub fn pinned_program(path: &str) -> Result<OwnedFd, i32> {
    let path = CString::new(path.replace('\0', "")).unwrap_or_default();
    // SAFETY: the string lives across the call.
    owned(unsafe { sys::bpf_obj_get(path.as_ptr()) })
}

/// What the kernel lists of a program: verified instructions, bytes after rewriting, how often it ran.
pub struct Listed {
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// At most 15 characters.
    pub name: String,
    pub verified: u32,
    pub translated: u32,
    pub ran: u64,
}

/// Asks the kernel.
pub fn listed(program: &impl AsFd) -> Option<Listed> {
    let mut info = sys::bpf_prog_info::default();
    let mut length = size_of::<sys::bpf_prog_info>() as u32;
    let fd = program.as_fd().as_raw_fd();
    // SAFETY: the structure and its size; all addresses in it are null.
    let done = unsafe { sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut length) };
    (done == 0).then(|| Listed {
        kind: info.type_,
        name: text_in(&info.name),
        verified: info.verified_insns,
        translated: info.xlated_prog_len / 8,
        ran: info.run_cnt,
    })
}

/// `BPF_PROG_TEST_RUN` with one packet: the verdict, and the packet afterwards.
///
/// # Errors
/// The errno, negative.
pub fn test_run(program: &impl AsFd, packet: &[u8]) -> Result<(i32, Vec<u8>), i32> {
    // The kernel writes no more than it is told; a program may have made the packet longer.
    let mut out = vec![0u8; packet.len() + 4096];
    let mut options = sys::bpf_test_run_opts {
        sz: size_of::<sys::bpf_test_run_opts>() as u64,
        data_in: packet.as_ptr().cast(),
        data_size_in: packet.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: both buffers live across the call and have the sizes that are told.
    match unsafe { sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut options) } {
        0 => {
            out.truncate(options.data_size_out as usize);
            Ok((options.retval.cast_signed(), out))
        }
        error => Err(error),
    }
}
