//! Writes indented XML.
//!
//! Any text may come from a guest. All of it is escaped here: characters that XML does not allow become visible escapes.

use lab_base::text;
use quick_xml::escape::escape;

/// Maximum characters of an element's text.
const MAX_TEXT: usize = 64 << 10;

/// The document so far.
#[derive(Debug, Default)]
pub(super) struct Xml {
    text: String,
    depth: usize,
}

impl Xml {
    /// Elements of a document whose start is written elsewhere, `depth` elements deep.
    pub(super) fn within(depth: usize) -> Self {
        Self::with_room(depth, 0)
    }

    /// The same with room for so many bytes.
    pub(super) fn with_room(depth: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), depth }
    }

    /// A complete document.
    pub(super) fn document() -> Self {
        Self { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), depth: 0 }
    }

    /// Starts an element; it is complete when its tag is ended.
    pub(super) fn element(&mut self, name: &'static str) -> Tag<'_> {
        self.indent();
        self.text.push('<');
        self.text.push_str(name);
        Tag { xml: self, name }
    }

    /// Ends an element that contains others.
    pub(super) fn close(&mut self, name: &'static str) {
        self.depth = self.depth.saturating_sub(1);
        self.indent();
        self.end(name);
    }

    /// Length of the document so far, bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn indent(&mut self) {
        (0..self.depth).for_each(|_| self.text.push_str("    "));
    }

    fn end(&mut self, name: &'static str) {
        for part in ["</", name, ">\n"] {
            self.text.push_str(part);
        }
    }
}

/// The start tag of an element.
pub(super) struct Tag<'a> {
    xml: &'a mut Xml,
    name: &'static str,
}

impl Tag<'_> {
    /// Adds an attribute: one line, of any length.
    pub(super) fn with(self, name: &str, value: &str) -> Self {
        let value = text::cut_line(value, usize::MAX);
        for part in [" ", name, "=\"", &escape(&*value), "\""] {
            self.xml.text.push_str(part);
        }
        self
    }

    /// Adds an attribute if it has a value.
    pub(super) fn with_any(self, name: &str, value: Option<String>) -> Self {
        match value {
            Some(value) => self.with(name, &value),
            None => self,
        }
    }

    /// Ends the tag; other elements follow, until [`Xml::close`].
    pub(super) fn open(self) {
        self.xml.text.push_str(">\n");
        self.xml.depth += 1;
    }

    /// Ends the tag without content.
    pub(super) fn empty(self) {
        self.xml.text.push_str("/>\n");
    }

    /// Ends the tag with text of any number of lines; long text is cut off.
    pub(super) fn text(self, text: &str) {
        let text = text::cut_block(text, MAX_TEXT);
        self.xml.text.push('>');
        self.xml.text.push_str(&escape(&*text));
        self.xml.end(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_text_cannot_become_markup() {
        let mut xml = Xml::document();
        xml.element("a").with("b", "\"><x>\n\x1b[1m").with_any("c", None).open();
        xml.element("d").with_any("e", Some("'".to_owned())).empty();
        xml.element("f").text("]]></f>&\n\t\x1b[1m\0");
        xml.close("a");
        let wanted = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                      <a b=\"&quot;&gt;&lt;x&gt;\\n\\u{1b}[1m\">\n    <d e=\"&apos;\"/>\n    \
                      <f>]]&gt;&lt;/f&gt;&amp;\n\t\\u{1b}[1m\\u{0}</f>\n</a>\n";
        assert_eq!(xml.into_text(), wanted);
    }
}
