//! `check.toml`: what an object needs, what is sent through it, and what is expected of it.

use crate::lists::KernelRange;
use lab_base::strict_toml::{ConfigError, Origin, Section};
use lab_check::{
    CheckExpectation, CheckMap, CheckOrder, CheckPacket, CheckSlot, Expected, Fate, HOOKS, LoadClass, PinnedMap,
    bytes_of_hex, frame, hook_named,
};
use lab_guard::bounded;
use lab_protocol::{Hook, KernelVersion};
use std::path::{Path, PathBuf};
use toml_edit::Document;

/// The usual name.
const FILE: &str = "check.toml";
/// What is sent where no packet is given.
const USUAL_PACKET: (&str, &str) = ("udp", "udp 10.0.0.1:1 > 10.0.0.2:2");
const NUMBERS: std::ops::Range<u32> = 0..u32::MAX;

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
    /// What is expected.
    pub expectation: CheckExpectation,
}

impl Conditional {
    /// Whether it is about that object.
    pub fn is_about(&self, object: &str) -> bool {
        self.object.as_ref().is_none_or(|name| name == object)
    }

    /// Whether it holds there.
    pub fn holds(&self, object: &str, version: KernelVersion) -> bool {
        self.is_about(object) && self.kernels.as_ref().is_none_or(|range| range.holds(version))
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
        Self::parse(&file, &text)
    }

    fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let origin = Origin { file, text };
        let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
        let allowed = ["only", "hooks", "modules", "types", "globals", "maps", "slots", "packets", "expect"];
        let top = Section::open(origin, document.as_table(), None, "the file".into(), &allowed)?;
        let mut config = Self { file: file.to_owned(), ..Self::default() };
        let order = &mut config.order;
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        order.only = owned(top.texts("only")?);
        order.modules = owned(top.texts("modules")?);
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
                let map = maps.section(key, format!("[maps.{key}]"), &["max_entries", "entries", "pinned"])?;
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
            let packet = |key: &str| {
                let frame = frame(packets.required(key)?).map_err(|error| packets.error_at(key, error.to_string()))?;
                Ok(CheckPacket { name: key.to_owned(), frame })
            };
            order.packets = packets.keys().map(packet).collect::<Result<_, ConfigError>>()?;
        }
        let keys =
            ["object", "kernels", "program", "hook", "packet", "load", "verdict", "fate", "bytes", "instructions"];
        for section in top.sections("expect", "this [[expect]]", &keys)? {
            config.expect.extend(expectations(&section, file, &config.order)?);
        }
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

fn map_of(section: &Section<'_>) -> Result<CheckMap, ConfigError> {
    let max_entries = section.number("max_entries", 1..u32::MAX)?;
    let mut map = CheckMap { max_entries, ..CheckMap::default() };
    if let Some(pinned) =
        section.section("pinned", "`pinned`".into(), &["type", "key_size", "value_size", "max_entries"])?
    {
        let number = |key: &str| pinned.number(key, 0..u32::MAX)?.ok_or_else(|| pinned.missing(key));
        map.pinned = Some(PinnedMap {
            kind: pinned.required("type")?.to_owned(),
            key_size: number("key_size")?,
            value_size: number("value_size")?,
            max_entries: number("max_entries")?,
        });
    }
    for entry in section.sections("entries", "this entry", &["key", "value"])? {
        let bytes = |key: &str| {
            let text = entry.required(key)?;
            text.strip_prefix("hex ").and_then(bytes_of_hex).ok_or_else(|| {
                entry.error_at(key, format!("`{key}` must be bytes in the order of memory: \"hex 01:00:00:00\""))
            })
        };
        map.entries.push((bytes("key")?, bytes("value")?));
    }
    Ok(map)
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
    if what.is_empty() {
        let message =
            format!("{} expects nothing: it needs load, verdict, fate, bytes or instructions", section.name());
        return Err(section.error_at("program", message));
    }
    let (object, program) = (section.text("object")?, section.text("program")?);
    let origin = format!("{file}:{}", section.line());
    let conditional = |what| Conditional {
        object: object.map(str::to_owned),
        kernels: kernels.clone(),
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
        ("fails", None) => Ok(Expected::Fails(None)),
        ("fails", Some(class)) if LoadClass::named(class).is_some() => Ok(Expected::Fails(Some(class.to_owned()))),
        ("fails", Some(class)) => {
            let names: Vec<&str> = LoadClass::ALL.iter().map(|class| class.name()).collect();
            let hint = lab_base::nearest::suggest(class, &names);
            Err(section
                .error_at("load", format!("`{class}` is no class of failure{hint}; they are {}", names.join(", "))))
        }
        _ => Err(section.error_at("load", format!("`{text}`: write loads, fails or \"fails: kfunc\""))),
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
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        CheckConfig::parse("check.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_says_what_an_object_needs_and_what_is_expected() {
        let text = r#"
            only = ["main"]
            hooks = ["tc/ingress", "netkit/peer"]
            modules = ["nf_conntrack"]
            [types]
            "classifier/drop" = "sched_cls"
            [globals]
            level = 259
            mac = "hex 01:02"
            [maps.flows]
            max_entries = 16
            pinned = { type = "hash", key_size = 4, value_size = 1, max_entries = 8 }
            entries = [{ key = "hex 01000000", value = "hex 02" }]
            [[slots]]
            map = "jmp"
            index = 3
            program = "tail"
            [packets]
            small = "udp 10.0.0.1:1 > 10.0.0.2:2"
            [[expect]]
            kernels = "<6.4"
            load = "fails: kfunc"
            [[expect]]
            program = "main"
            hook = "netkit/peer"
            packet = "small"
            verdict = "TC_ACT_PIPE"
            fate = "dropped"
        "#;
        let config = CheckConfig::parse("check.toml", text).unwrap();
        assert_eq!((&*config.order.globals["level"], &*config.order.globals["mac"]), (&[3u8, 1][..], &[1u8, 2][..]));
        assert_eq!(config.order.hooks, [Hook::ClsactIngress, Hook::NetkitPeer]);
        assert_eq!(config.order.maps["flows"].entries, [(vec![1, 0, 0, 0], vec![2])]);
        assert_eq!(config.order.maps["flows"].pinned.as_ref().map(|it| (&*it.kind, it.max_entries)), Some(("hash", 8)));
        let on = |version: &str| {
            let version = version.parse().unwrap();
            let those = config.expect.iter().filter(|it| it.holds("x", version));
            those.map(|it| it.expectation.what.clone()).collect::<Vec<_>>()
        };
        let always = [Expected::Verdict(3), Expected::Fate("dropped".into())];
        assert_eq!(on("6.12"), always);
        assert_eq!(on("6.1.192"), [&[Expected::Fails(Some("kfunc".into()))], &always[..]].concat());
    }

    #[test]
    fn errors_name_line_key_and_what_would_be_right() {
        assert_eq!(error("hook = []"), "check.toml:1: unknown key `hook` in the file; did you mean `hooks`?");
        assert!(error("hooks = [\"tc\"]").contains("the hooks are clsact/ingress"), "{}", error("hooks = [\"tc\"]"));
        assert!(
            error("[[expect]]\nload = \"fails: kfnc\"")
                .starts_with("check.toml:2: `kfnc` is no class of failure; did you mean `kfunc`?")
        );
        assert!(error("[packets]\nx = \"udp 1\"").starts_with("check.toml:2: `udp 1` is no packet"));
        assert!(error("[[expect]]\nprogram = \"x\"").contains("expects nothing"));
        assert!(error("[[expect]]\nfate = \"lost\"").contains("is no fate"));
        assert!(error("[[expect]]\npacket = \"p\"\nfate = \"dropped\"").contains("[packets] has no `p`"));
        assert!(error("[globals]\nx = \"one\"").contains("must be a number"));
        assert!(error("[[expect]]\nkernels = \"new\"\nload = \"loads\"").contains("`kernels`:"));
        assert!(error("[maps.m]\npinned = { type = \"hash\" }").contains("key_size"));
        assert!(error("only = 3").contains("must be a list of texts"));
    }
}
