//! `check.toml`: what an object needs, what is sent through it, and what is expected of it.

use crate::lists::KernelRange;
use lab_base::strict_toml::{ConfigError, Origin, Section};
use lab_check::{
    CheckExpectation, CheckMap, CheckOrder, CheckPacket, CheckSlot, CounterPlace, Expected, Fate, HOOKS, InnerMap,
    LIBBPF, LoadClass, MAX_CAPTURE, MapEntries, MapShape, bytes_of_hex, captured, frame, hook_named,
};
use lab_guard::bounded;
use lab_protocol::{Hook, KernelVersion};
use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};
use toml_edit::Document;

/// The usual name.
const FILE: &str = "check.toml";
/// What is sent where no packet is given.
const USUAL_PACKET: (&str, &str) = ("udp", "udp 10.0.0.1:1 > 10.0.0.2:2");
const NUMBERS: std::ops::Range<u32> = 0..u32::MAX;
/// The BPF file system.
const BPF_FILES: &str = "/sys/fs/bpf";
/// How a packet's text begins that names a capture.
const CAPTURE: &str = "pcap ";
/// In place of a loader's name: every one.
const EVERY: &str = "*";
/// Keys of what is known of a map that does not exist yet.
const SHAPE: [&str; 4] = ["type", "key_size", "value_size", "max_entries"];

/// What a file says.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// Its name, for messages.
    pub file: String,
    /// For the loader; without name and expectations.
    pub order: CheckOrder,
    /// What is expected.
    pub expect: Vec<Conditional>,
}

/// An expectation, and where it holds.
#[derive(Debug, Clone)]
pub struct Conditional {
    /// The object, by its name; every one if `None`.
    pub object: Option<String>,
    /// The kernels; every one if `None`.
    pub kernels: Option<KernelRange>,
    /// The loader; libbpf if `None`, every one if `*`.
    pub loader: Option<String>,
    /// What is expected.
    pub expectation: CheckExpectation,
}

impl Conditional {
    /// Whether it is about that object.
    pub fn is_about(&self, object: &str) -> bool {
        self.object.as_ref().is_none_or(|name| name == object)
    }

    /// Whether it holds there.
    pub fn holds(&self, object: &str, loader: &str, version: KernelVersion) -> bool {
        let named = self.loader.as_deref().unwrap_or(LIBBPF);
        (named == EVERY || named == loader)
            && self.is_about(object)
            && self.kernels.as_ref().is_none_or(|range| range.holds(version))
    }
}

impl Default for CheckConfig {
    fn default() -> Self {
        let (name, text) = USUAL_PACKET;
        let packets = frame(text).map(|frame| vec![CheckPacket { name: name.to_owned(), frame }]).unwrap_or_default();
        let order = CheckOrder { hooks: HOOKS.to_vec(), packets, ..CheckOrder::default() };
        Self { file: FILE.to_owned(), order, expect: Vec::new() }
    }
}

/// The file beside an object: `x.check.toml` for `x.o`, or `check.toml`.
pub fn beside(object: &Path) -> Option<PathBuf> {
    [object.with_extension(FILE), object.with_file_name(FILE)].into_iter().find(|path| path.is_file())
}

impl CheckConfig {
    /// What is expected of an object that this loader loads. Where libbpf may fail, another loader may too, unless the file says what
    /// that one does.
    pub fn expected(&self, object: &str, loader: &str, version: KernelVersion) -> Vec<CheckExpectation> {
        let of = |loader: &str| -> Vec<CheckExpectation> {
            let those = self.expect.iter().filter(|it| it.holds(object, loader, version));
            those.map(|it| it.expectation.clone()).collect()
        };
        let mut expected = of(loader);
        if loader != LIBBPF && !expected.iter().any(|it| it.what.is_about_loading()) {
            let failure = of(LIBBPF).into_iter().find(|it| matches!(it.what, Expected::Fails(_)));
            expected.extend(failure.map(|it| CheckExpectation { what: Expected::LoadsOrFails, ..it }));
        }
        expected
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = bounded::text(path).map_err(|error| ConfigError {
            file: file.clone(),
            line: 1,
            message: error.to_string(),
        })?;
        Self::parse(&file, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// `beside` is the directory that captures are named from.
    fn parse(file: &str, text: &str, beside: &Path) -> Result<Self, ConfigError> {
        let origin = Origin { file, text };
        let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
        let allowed = ["only", "hooks", "modules", "pins", "types", "globals", "maps", "slots", "packets", "expect"];
        let top = Section::open(origin, document.as_table(), None, "the file".into(), &allowed)?;
        let mut config = Self { file: file.to_owned(), ..Self::default() };
        let order = &mut config.order;
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        order.only = owned(top.texts("only")?);
        order.modules = owned(top.texts("modules")?);
        order.pins = top.text("pins")?.map(|path| pins(&top, path)).transpose()?;
        let hooks = top.texts("hooks")?;
        if !hooks.is_empty() {
            order.hooks = hooks.into_iter().map(|name| hook(&top, "hooks", name)).collect::<Result<_, _>>()?;
        }
        if let Some(types) = top.section("types", "[types]".into(), &[])? {
            for key in types.keys() {
                order.types.insert(key.to_owned(), types.required(key)?.to_owned());
            }
        }
        if let Some(globals) = top.section("globals", "[globals]".into(), &[])? {
            for key in globals.keys() {
                order.globals.insert(key.to_owned(), value(&globals, key)?);
            }
        }
        if let Some(maps) = top.section("maps", "[maps]".into(), &[])? {
            for key in maps.keys() {
                let allowed = ["max_entries", "entries", "pinned", "inner", "inner_maps"];
                let map = maps.section(key, format!("[maps.{key}]"), &allowed)?;
                order.maps.insert(key.to_owned(), map.map(|map| map_of(&map)).transpose()?.unwrap_or_default());
            }
        }
        for slot in top.sections("slots", "this [[slots]]", &["map", "index", "program"])? {
            order.slots.push(CheckSlot {
                map: slot.required("map")?.to_owned(),
                index: slot.number("index", NUMBERS)?.ok_or_else(|| slot.missing("index"))?,
                program: slot.required("program")?.to_owned(),
            });
        }
        if let Some(packets) = top.section("packets", "[packets]".into(), &[])? {
            let each = packets.keys().map(|key| these_packets(&packets, key, beside));
            order.packets = each.collect::<Result<Vec<_>, ConfigError>>()?.concat();
        }
        let keys = [
            "object",
            "kernels",
            "loader",
            "program",
            "hook",
            "packet",
            "load",
            "verdict",
            "fate",
            "bytes",
            "instructions",
            "counter",
            "runs",
        ];
        for section in top.sections("expect", "this [[expect]]", &keys)? {
            config.expect.extend(expectations(&section, file, &config.order)?);
        }
        let counters = config.expect.iter().filter_map(|it| match &it.expectation.what {
            Expected::Adds(place, _) => Some(place.clone()),
            _ => None,
        });
        config.order.counters = counters.collect::<BTreeSet<_>>().into_iter().collect();
        Ok(config)
    }
}

fn hook(section: &Section<'_>, key: &str, name: &str) -> Result<Hook, ConfigError> {
    hook_named(name).ok_or_else(|| {
        let names: Vec<&str> = HOOKS.iter().map(|hook| hook.name()).collect();
        section.error_at(key, format!("`{name}` is no hook; the hooks are {}", names.join(", ")))
    })
}

/// A value as bytes: a number, little-endian and as short as it can be, or `hex …`.
fn value(section: &Section<'_>, key: &str) -> Result<Vec<u8>, ConfigError> {
    if let Ok(Some(text)) = section.text(key) {
        let bytes = text.strip_prefix("hex ").and_then(bytes_of_hex);
        return bytes.ok_or_else(|| {
            section.error_at(key, format!("`{key}` must be a number, or bytes as \"hex 01:02\" in the order of memory"))
        });
    }
    let number = section.number(key, NUMBERS)?.ok_or_else(|| section.missing(key))?;
    let bytes = number.to_le_bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    Ok(bytes[..used].to_vec())
}

/// A directory below the BPF file system.
fn pins(section: &Section<'_>, path: &str) -> Result<String, ConfigError> {
    let below = Path::new(path).strip_prefix(BPF_FILES).ok();
    let is_plain = |below: &Path| {
        below.components().count() > 0 && below.components().all(|part| matches!(part, Component::Normal(_)))
    };
    // libbpf has room for so many bytes of a path (`PATH_MAX`), the map's name among them.
    if below.is_some_and(is_plain) && path.len() < 1000 {
        return Ok(path.to_owned());
    }
    Err(section
        .error_at("pins", format!("`pins`: `{path}` is no directory below {BPF_FILES}, as {BPF_FILES}/tc/globals is")))
}

/// A packet, or those of a capture: `pcap FILE`, or `pcap FILE 3` for the third alone.
fn these_packets(packets: &Section<'_>, key: &str, beside: &Path) -> Result<Vec<CheckPacket>, ConfigError> {
    let text = packets.required(key)?;
    let wrong = |message: String| packets.error_at(key, message);
    let Some(named) = text.trim().strip_prefix(CAPTURE).map(str::trim) else {
        let frame = frame(text).map_err(|error| wrong(error.to_string()))?;
        return Ok(vec![CheckPacket { name: key.to_owned(), frame }]);
    };
    let numbered = named.rsplit_once(' ').and_then(|(file, number)| Some((file.trim(), number.parse::<usize>().ok()?)));
    let (file, number) = numbered.map_or((named, None), |(file, number)| (file, Some(number)));
    let path = beside.join(file);
    let bytes = bounded::file(&path, MAX_CAPTURE).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let frames = captured(&bytes, number).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    let is_one = frames.len() == 1;
    let name = |at: usize| if is_one { key.to_owned() } else { format!("{key}.{}", at + 1) };
    Ok(frames.into_iter().enumerate().map(|(at, frame)| CheckPacket { name: name(at), frame }).collect())
}

/// Bytes in the order of memory.
fn memory(section: &Section<'_>, key: &str) -> Result<Vec<u8>, ConfigError> {
    let text = section.required(key)?;
    text.strip_prefix("hex ").and_then(bytes_of_hex).ok_or_else(|| {
        section.error_at(key, format!("`{key}` must be bytes in the order of memory: \"hex 01:00:00:00\""))
    })
}

/// Keys and values.
fn entries(section: &Section<'_>) -> Result<MapEntries, ConfigError> {
    let all = section.sections("entries", "this entry", &["key", "value"])?;
    all.iter().map(|entry| Ok((memory(entry, "key")?, memory(entry, "value")?))).collect()
}

/// A map that does not exist yet.
fn shape(section: &Section<'_>, key: &str) -> Result<Option<MapShape>, ConfigError> {
    let Some(told) = section.section(key, format!("`{key}`"), &SHAPE)? else { return Ok(None) };
    let number = |key: &str| told.number(key, 0..u32::MAX)?.ok_or_else(|| told.missing(key));
    Ok(Some(MapShape {
        kind: told.required("type")?.to_owned(),
        key_size: number("key_size")?,
        value_size: number("value_size")?,
        max_entries: number("max_entries")?,
    }))
}

fn map_of(section: &Section<'_>) -> Result<CheckMap, ConfigError> {
    let max_entries = section.number("max_entries", 1..u32::MAX)?;
    let inner_maps = section.sections("inner_maps", "this inner map", &["key", "entries"])?;
    let inner_maps = inner_maps.iter().map(|it| Ok(InnerMap { key: memory(it, "key")?, entries: entries(it)? }));
    Ok(CheckMap {
        max_entries,
        entries: entries(section)?,
        pinned: shape(section, "pinned")?,
        inner: shape(section, "inner")?,
        inner_maps: inner_maps.collect::<Result<_, ConfigError>>()?,
    })
}

/// One table may expect several things.
fn expectations(section: &Section<'_>, file: &str, order: &CheckOrder) -> Result<Vec<Conditional>, ConfigError> {
    let kernels = section.text("kernels")?.map(|range| {
        range.parse::<KernelRange>().map_err(|why| {
            section.error_at("kernels", format!("`kernels`: {why}; for example \">=6.7, <6.12\", or \"6.12\""))
        })
    });
    let kernels = kernels.transpose()?;
    let place = section.text("hook")?.map(|name| hook(section, "hook", name)).transpose()?;
    let packet = section.text("packet")?;
    if let Some(name) = packet.filter(|name| !order.packets.iter().any(|packet| packet.name == *name)) {
        return Err(section.error_at("packet", format!("[packets] has no `{name}`")));
    }
    let mut what = Vec::new();
    if let Some(load) = section.text("load")? {
        what.push(expected_load(section, load)?);
    }
    if let Some(text) = section.text("verdict")? {
        what.push(Expected::Verdict(verdict(text).ok_or_else(|| {
            section.error_at("verdict", format!("`{text}` is no verdict: write a number, or TC_ACT_SHOT"))
        })?));
    }
    if let Some(text) = section.text("fate")? {
        let plain = [Fate::Delivered, Fate::Changed, Fate::Dropped].iter().any(|fate| fate.text() == text);
        if !plain && text != "redirected" && !text.starts_with("redirected: ") {
            let message =
                format!("`{text}` is no fate: write delivered, changed, dropped, redirected or \"redirected: DEVICE\"");
            return Err(section.error_at("fate", message));
        }
        what.push(Expected::Fate(text.to_owned()));
    }
    if let Some(text) = section.text("bytes")? {
        what.push(Expected::Bytes(frame(text).map_err(|error| section.error_at("bytes", error.to_string()))?));
    }
    if let Some(most) = section.number("instructions", 1..u32::MAX)? {
        what.push(Expected::Instructions(most));
    }
    if let Some(counter) = section.section("counter", "`counter`".into(), &["map", "key", "at", "adds"])? {
        let place = CounterPlace {
            map: counter.required("map")?.to_owned(),
            key: memory(&counter, "key")?,
            at: counter.number("at", NUMBERS)?.unwrap_or_default(),
        };
        let adds = counter.number("adds", NUMBERS)?.ok_or_else(|| counter.missing("adds"))?;
        what.push(Expected::Adds(place, adds));
    }
    if let Some(runs) = section.number("runs", NUMBERS)? {
        what.push(Expected::Runs(runs));
    }
    if what.is_empty() {
        let message = format!(
            "{} expects nothing: it needs load, verdict, fate, bytes, instructions, counter or runs",
            section.name()
        );
        return Err(section.error_at("program", message));
    }
    let (object, program) = (section.text("object")?, section.text("program")?);
    let loader = section.text("loader")?;
    let origin = format!("{file}:{}", section.line());
    let conditional = |what| Conditional {
        object: object.map(str::to_owned),
        kernels: kernels.clone(),
        loader: loader.map(str::to_owned),
        expectation: CheckExpectation {
            program: program.map(str::to_owned),
            hook: place,
            packet: packet.map(str::to_owned),
            what,
            origin: origin.clone(),
        },
    };
    Ok(what.into_iter().map(conditional).collect())
}

fn expected_load(section: &Section<'_>, text: &str) -> Result<Expected, ConfigError> {
    let (word, class) = text.split_once(':').map_or((text, None), |(word, class)| (word, Some(class.trim())));
    match (word, class) {
        ("loads", None) => Ok(Expected::Loads),
        ("any", None) => Ok(Expected::LoadsOrFails),
        ("fails", None) => Ok(Expected::Fails(None)),
        ("fails", Some(class)) if LoadClass::named(class).is_some() => Ok(Expected::Fails(Some(class.to_owned()))),
        ("fails", Some(class)) => {
            let names: Vec<&str> = LoadClass::ALL.iter().map(|class| class.name()).collect();
            let hint = lab_base::nearest::suggest(class, &names);
            Err(section
                .error_at("load", format!("`{class}` is no class of failure{hint}; they are {}", names.join(", "))))
        }
        _ => Err(section.error_at("load", format!("`{text}`: write loads, fails, any or \"fails: kfunc\""))),
    }
}

/// A number, or a name of include/uapi/linux/pkt_cls.h.
fn verdict(text: &str) -> Option<i64> {
    const NAMES: [&str; 10] =
        ["UNSPEC", "OK", "RECLASSIFY", "SHOT", "PIPE", "STOLEN", "QUEUED", "REPEAT", "REDIRECT", "TRAP"];
    let named = text.strip_prefix("TC_ACT_").and_then(|name| NAMES.iter().position(|it| *it == name));
    named.map(|at| at as i64 - 1).or_else(|| text.parse().ok())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
