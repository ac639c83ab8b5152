//! The elements of an XML file, for project files of Maven and .NET.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// Elements beyond these are not looked at.
const ELEMENTS_MAX: usize = 5000;
const DEPTH_MAX: usize = 16;

/// One element, as it ended.
#[derive(Debug)]
pub(super) struct Element {
    /// The names from the root to it: `project/dependencies/dependency`.
    pub(super) path: String,
    /// Its own text.
    pub(super) text: String,
    attributes: Vec<(String, String)>,
}

impl Element {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The elements in the order of their ends, as far as the text is XML.
pub(super) fn elements(text: &str) -> Vec<Element> {
    let mut reader = Reader::from_str(text);
    let (mut open, mut done): (Vec<Element>, Vec<Element>) = (Vec::new(), Vec::new());
    // How many elements are open below the deepest one that is looked at.
    let mut deeper = 0usize;
    while done.len() < ELEMENTS_MAX {
        match reader.read_event() {
            Ok(Event::Start(_)) if open.len() >= DEPTH_MAX => deeper += 1,
            Ok(Event::End(_)) if deeper > 0 => deeper -= 1,
            Ok(Event::Start(start)) => open.push(element(&open, &start)),
            Ok(Event::Empty(start)) if deeper == 0 => done.push(element(&open, &start)),
            Ok(Event::End(_)) => done.extend(open.pop()),
            Ok(Event::Text(text)) if deeper == 0 => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(text.trim());
                }
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(_) => {}
        }
    }
    done
}

fn element(open: &[Element], start: &BytesStart<'_>) -> Element {
    let name = start.name().as_ref().to_owned();
    let path = match open.last() {
        Some(parent) => format!("{}/{name}", parent.path),
        None => name,
    };
    let attributes = start
        .attributes()
        .flatten()
        .map(|attribute| (attribute.key.as_ref().to_owned(), attribute.value.into_owned()))
        .take(20)
        .collect();
    Element { path, text: String::new(), attributes }
}
