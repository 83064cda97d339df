//! Checks drawings (SVG) from a guest.
//!
//! A browser executes scripts in an SVG file that is opened directly, with the rights of the site. Therefore a file
//! with anything but shapes and text is stored as text.

use quick_xml::{Reader, events::Event};

/// Elements of the topologies' drawings.
const ELEMENTS: [&[u8]; 12] = [
    b"svg",
    b"g",
    b"rect",
    b"line",
    b"path",
    b"circle",
    b"ellipse",
    b"polyline",
    b"polygon",
    b"text",
    b"tspan",
    b"title",
];
/// Attributes for position, colour and text.
const ATTRIBUTES: [&[u8]; 36] = [
    b"xmlns",
    b"version",
    b"width",
    b"height",
    b"viewBox",
    b"x",
    b"y",
    b"x1",
    b"y1",
    b"x2",
    b"y2",
    b"dx",
    b"dy",
    b"cx",
    b"cy",
    b"r",
    b"rx",
    b"ry",
    b"d",
    b"points",
    b"fill",
    b"stroke",
    b"stroke-width",
    b"stroke-dasharray",
    b"opacity",
    b"transform",
    b"font-family",
    b"font-size",
    b"font-weight",
    b"font-style",
    b"text-anchor",
    b"dominant-baseline",
    b"stroke-linecap",
    b"stroke-linejoin",
    b"paint-order",
    b"xml:space",
];

/// Whether these bytes are an SVG drawing with shapes and text only.
pub fn only_draws(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let mut reader = Reader::from_str(text);
    let mut drawn = false;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag) | Event::Empty(tag)) => {
                let plain = |attribute: Result<quick_xml::events::attributes::Attribute<'_>, _>| {
                    attribute.is_ok_and(|it| {
                        let value = it.value.to_ascii_lowercase();
                        let refers = value.windows(4).any(|part| part == b"url(") || value.contains(&b'&');
                        // Not well-formed XML (XML 1.0, 3.1), and markup where a reader ends the value elsewhere.
                        let markup = value.contains(&b'<');
                        ATTRIBUTES.contains(&it.key.as_ref()) && !refers && !markup
                    })
                };
                if !ELEMENTS.contains(&tag.name().as_ref()) || !tag.attributes().all(plain) {
                    return false;
                }
                drawn = true;
            }
            Ok(Event::End(_) | Event::Text(_) | Event::GeneralRef(_)) => {}
            Ok(Event::Eof) => return drawn,
            // Style sheets, document type declarations, CDATA sections; comments, which HTML ends at `--!>` and XML does not.
            Ok(_) | Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shapes_and_text_are_a_drawing() {
        let svg = |inside: &str| format!(r#"<svg xmlns="http://www.w3.org/2000/svg" width="9">{inside}</svg>"#);
        for good in ["", r#"<g><rect x="1"/><text x="1">a &lt; b<tspan fill="red">c</tspan></text></g>"#] {
            assert!(only_draws(svg(good).as_bytes()), "{good}");
        }
        for bad in [
            "<script>alert(1)</script>",
            r#"<rect onload="x()"/>"#,
            r#"<a href="javascript:x()"><text>y</text></a>"#,
            r#"<image href="http://e/"/>"#,
            "<foreignObject><body/></foreignObject>",
            "<style>*{}</style>",
            r#"<rect fill="url(http://e/)"/>"#,
            r#"<rect fill="&#117;rl(x)"/>"#,
            "<?xml-stylesheet href='x'?>",
            "<![CDATA[x]]>",
            "<!-- --!><script>alert(1)</script> -->",
            r#"<rect fill="<script>alert(1)</script>"/>"#,
            "<rect",
        ] {
            assert!(!only_draws(svg(bad).as_bytes()), "{bad}");
        }
        assert!(
            !only_draws(b"<!DOCTYPE svg [<!ENTITY x 'y'>]><svg/>")
                && !only_draws(b"words")
                && !only_draws(b"\xff<svg/>")
        );
    }
}
