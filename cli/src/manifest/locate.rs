//! A document's fields with their places: which line `spec.ray.workers[1].gpus` is on, and which field a line is in.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// A line and a column, from 1.
pub type Place = (u64, u64);

/// A parsed document that remembers where everything stands.
#[derive(Debug)]
pub struct Tree(Spanned<Node>);

#[derive(Debug)]
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Scalar(String),
}

fn place(location: Location) -> Place {
    (location.line(), location.column())
}

impl Tree {
    /// Parses one document.
    pub fn of(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str_with_options(text, super::source::options()).map(Tree)
    }

    /// Where the document's content begins.
    pub fn start(&self) -> Place {
        match &self.0.value {
            Node::Map(fields) => fields.first().map_or(place(self.0.referenced), |(key, _)| place(key.referenced)),
            _ => place(self.0.referenced),
        }
    }

    /// Whether the document is a mapping.
    pub fn is_map(&self) -> bool {
        matches!(self.0.value, Node::Map(_))
    }

    /// The text of a field at the top, where it is there and is one value.
    pub fn scalar(&self, field: &str) -> Option<&str> {
        let Node::Map(fields) = &self.0.value else { return None };
        match &fields.iter().find(|(key, _)| key.value == field)?.1.value {
            Node::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Where the field of a path such as `spec.ray.workers[1].gpus` stands; where it is not written, the nearest thing
    /// around it that is.
    pub fn find(&self, path: &str) -> Option<Place> {
        // A map's entries may be written with or without brackets: `spec.env["A"]` and `spec.env.A`.
        let plain = |path: &str| path.replace("[\"", ".").replace("\"]", "");
        let (path, mut found) = (plain(path), None);
        walk(&self.0.value, "", &mut |at, key, _| {
            let inside = path
                .strip_prefix(plain(at).as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            if inside {
                found = Some(key);
            }
        });
        found
    }

    /// The path of the field at a place: of the last that begins there or before it.
    pub fn field_at(&self, wanted: Place) -> String {
        let mut best: Option<(Place, String)> = None;
        walk(&self.0.value, "", &mut |path, key, value| {
            for start in [key, value] {
                if start <= wanted && best.as_ref().is_none_or(|(at, _)| start >= *at) {
                    best = Some((start, path.to_owned()));
                }
            }
        });
        best.map(|(_, path)| path).unwrap_or_default()
    }

    /// The path of the mapping that begins at a place or just before it: the outermost such.
    pub fn mapping_at(&self, wanted: Place) -> String {
        if wanted <= self.start() {
            return String::new();
        }
        let mut best: Option<(Place, String)> = None;
        walk_nodes(&self.0, "", &mut |path, node| {
            let start = place(node.referenced);
            let is_map = matches!(node.value, Node::Map(_));
            if is_map && start <= wanted && best.as_ref().is_none_or(|(at, _)| start > *at) {
                best = Some((start, path.to_owned()));
            }
        });
        best.map(|(_, path)| path).unwrap_or_default()
    }

    /// The list entries' places and texts of the fields called `name`, with their paths.
    pub fn texts_of(&self, name: &str) -> Vec<(String, Place, String)> {
        let mut found = vec![];
        walk_nodes(&self.0, "", &mut |path, node| {
            let field = path.rsplit('.').next().unwrap_or(path);
            if let Node::Scalar(text) = &node.value
                && (field == name || field.strip_prefix(name).is_some_and(|rest| rest.starts_with('[')))
            {
                found.push((path.to_owned(), place(node.referenced), text.clone()));
            }
        });
        found
    }
}

/// Visits every field and list entry, outer before inner, in the order in which they are written, with path, the place
/// of its key (an entry's: of itself) and the place of its value.
fn walk(node: &Node, at: &str, visit: &mut impl FnMut(&str, Place, Place)) {
    match node {
        Node::Map(fields) => {
            for (key, value) in fields {
                let path = child(at, &key.value);
                visit(&path, place(key.referenced), place(value.referenced));
                walk(&value.value, &path, visit);
            }
        }
        Node::List(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                let path = format!("{at}[{i}]");
                visit(&path, place(entry.referenced), place(entry.referenced));
                walk(&entry.value, &path, visit);
            }
        }
        Node::Scalar(_) => {}
    }
}

fn walk_nodes(node: &Spanned<Node>, at: &str, visit: &mut impl FnMut(&str, &Spanned<Node>)) {
    visit(at, node);
    match &node.value {
        Node::Map(fields) => {
            fields.iter().for_each(|(key, value)| walk_nodes(value, &child(at, &key.value), visit));
        }
        Node::List(entries) => {
            entries.iter().enumerate().for_each(|(i, entry)| walk_nodes(entry, &format!("{at}[{i}]"), visit));
        }
        Node::Scalar(_) => {}
    }
}

fn child(at: &str, key: &str) -> String {
    let plain = key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'));
    match (at.is_empty(), plain) {
        (true, _) => key.to_owned(),
        (false, true) => format!("{at}.{key}"),
        // As the specification's own problems name the entries of its maps.
        (false, false) => format!("{at}[{key:?}]"),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E>(self, value: $type) -> Result<Node, E> {
            Ok(Node::Scalar(value.to_string()))
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(String::new()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut list = vec![];
        while let Some(entry) = entries.next_element()? {
            list.push(entry);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = vec![];
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "a: 1\nb:\n  c: [x, y]\n  d:\n  - {e: 2}\n  - e: 3\n    f: 4\n  m:\n    k.l: 1\n    n: 2\n";

    #[test]
    fn a_path_leads_to_its_line_and_a_missing_one_to_what_surrounds_it() {
        let tree = Tree::of(TEXT).unwrap();
        let line = |path: &str| tree.find(path).map(|(line, _)| line);
        assert_eq!(line("a"), Some(1));
        assert_eq!(line("b.c[1]"), Some(3));
        assert_eq!(line("b.d[1].f"), Some(7));
        assert_eq!(line("b.d[1].gone"), Some(6));
        assert_eq!(line("b.m[\"k.l\"]"), Some(9));
        assert_eq!(line("b.m[\"n\"]"), Some(10));
        assert_eq!(line("nowhere"), None);
    }

    #[test]
    fn a_place_leads_to_its_field() {
        let tree = Tree::of(TEXT).unwrap();
        assert_eq!(tree.field_at((3, 10)), "b.c[1]");
        assert_eq!(tree.field_at((7, 8)), "b.d[1].f");
        assert_eq!(tree.mapping_at((6, 5)), "b.d[1]");
        assert_eq!(tree.mapping_at((1, 1)), "");
    }
}
