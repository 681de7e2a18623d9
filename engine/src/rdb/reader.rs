//! A value taken apart element by element.

use crate::rdb::input::{Input, Scratch, score_of};
use crate::rdb::packed::{Blob, Entry, Layout};
use crate::rdb::seen::Seen;
use crate::rdb::{Element, Error, Kind, corrupt, node, tag};

/// Where elements come from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// One after the other in the payload: so many are left.
    Plain(u64),
    /// Packed into one string.
    Packed(Blob<'a>),
    /// A list in nodes: so many are left after this one.
    Nodes { left: u64, is_tagged: bool, open: Node<'a> },
}

/// A node of a list.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    /// One element, which is next in the payload.
    Plain,
    Packed(Blob<'a>),
}

/// Reads one value: its elements in the order of the payload.
///
/// An error ends it: what came before was part of a value that does not exist. Sets, hashes and
/// sorted sets have no element twice and are not empty, as Redis demands; no score is "not a
/// number". What follows the value is not looked at, as in Redis; see [`Reader::consumed_bytes`].
///
/// # Complexity
/// O(bytes) in all; a call costs what its element costs, but that the first of a packed part unpacks
/// it. Memory: what compressed parts unpack to, and 17 to 40 bytes per element of a set, hash or
/// sorted set for finding doubles.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) kind: Kind,
    pub(super) input: Input<'a>,
    pub(super) source: Source<'a>,
    /// Whether scores in the payload are text.
    pub(super) text_scores: bool,
    /// For the element, or the field.
    pub(super) first: Scratch,
    /// For the value.
    pub(super) second: Scratch,
    pub(super) seen: Option<Seen>,
    pub(super) taken: u64,
}

impl<'a> Reader<'a> {
    /// Begins with the byte that says what the value is.
    ///
    /// # Errors
    /// If it is none that is known, or the value cannot be one.
    pub fn new(payload: &'a [u8]) -> Result<Self, Error> {
        let mut input = Input::new(payload);
        let tag = input.byte()?;
        let kind = kind_of(tag)?;
        let source = open_source(tag, &mut input)?;
        let is_unique = matches!(kind, Kind::Set | Kind::Hash | Kind::Zset);
        Ok(Self {
            kind,
            input,
            source,
            text_scores: tag == tag::ZSET,
            first: Scratch::default(),
            second: Scratch::default(),
            seen: is_unique.then(Seen::default),
            taken: 0,
        })
    }

    /// The same, without looking for elements that come twice: who puts them into a table finds
    /// them there.
    #[must_use]
    pub fn with_doubles(mut self) -> Self {
        self.seen = None;
        self
    }

    /// The type of the value.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The most elements that it can have: what memory may be set aside for.
    pub fn count_max(&self) -> usize {
        match &self.source {
            Source::Plain(left) => usize::try_from(*left).unwrap_or(usize::MAX),
            Source::Packed(blob) => blob.entry_count_max(),
            Source::Nodes { .. } => self.input.left(),
        }
    }

    /// Bytes of the payload that have been read: all of the value when there is no element left.
    pub fn consumed_bytes(&self) -> usize {
        self.input.at()
    }

    /// Memory that it holds just now.
    pub fn heap_bytes(&self) -> usize {
        let blob = match &self.source {
            Source::Packed(blob) | Source::Nodes { open: Node::Packed(blob), .. } => {
                blob.heap_bytes()
            }
            _ => 0,
        };
        let seen = self.seen.as_ref().map_or(0, Seen::heap_bytes);
        blob + seen + self.first.heap_bytes() + self.second.heap_bytes()
    }

    /// The next element; `None` after the last.
    ///
    /// # Errors
    /// If the payload is no value. There is nothing to be had of it after that.
    #[expect(
        clippy::should_implement_trait,
        reason = "an element borrows from the reader, which an iterator's cannot"
    )]
    pub fn next(&mut self) -> Result<Option<Element<'_>>, Error> {
        if !self.has_more()? {
            let is_empty = self.taken == 0;
            return if is_empty {
                Err(corrupt(self.input.at(), "an empty value"))
            } else {
                Ok(None)
            };
        }
        self.taken += 1;
        let at = self.input.at();
        let Self { input, source, first, second, .. } = self;
        let element = match self.kind {
            Kind::String => return Ok(Some(Element::Str(text(source, input, first)?))),
            Kind::List => {
                let is_plain = matches!(source, Source::Nodes { open: Node::Plain, .. });
                let item = text(source, input, first)?;
                // Redis: only what is too long to be packed has a node of its own.
                if is_plain && item.is_empty() {
                    return Err(corrupt(at, "an empty node"));
                }
                return Ok(Some(Element::Item(item)));
            }
            Kind::Set => Element::Item(text(source, input, first)?),
            Kind::Hash => {
                let (field, value) = pair(source, input, first, second)?;
                Element::Field(field, value)
            }
            Kind::Zset => {
                let (member, score) = scored(source, input, first, self.text_scores)?;
                Element::Member(member, score)
            }
        };
        let (Element::Item(name) | Element::Field(name, _) | Element::Member(name, _)) = element
        else {
            return Ok(Some(element));
        };
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(name)) {
            return Err(corrupt(at, "an element comes twice"));
        }
        Ok(Some(element))
    }

    /// Whether there is another element, which is made ready.
    fn has_more(&mut self) -> Result<bool, Error> {
        match &mut self.source {
            Source::Plain(0) => Ok(false),
            Source::Plain(left) => {
                *left -= 1;
                Ok(true)
            }
            Source::Packed(blob) => blob.has_more(),
            Source::Nodes { left, is_tagged, open } => loop {
                if let Node::Packed(blob) = open
                    && blob.has_more()?
                {
                    return Ok(true);
                }
                if *left == 0 {
                    return Ok(false);
                }
                *left -= 1;
                // An empty node is passed over, as in Redis.
                *open = open_node(*is_tagged, &mut self.input)?;
                if matches!(open, Node::Plain) {
                    return Ok(true);
                }
            },
        }
    }
}

fn kind_of(tag: u8) -> Result<Kind, Error> {
    Ok(match tag {
        tag::STRING => Kind::String,
        tag::LIST | tag::LIST_ZIPLIST | tag::LIST_QUICKLIST | tag::LIST_QUICKLIST_2 => Kind::List,
        tag::SET | tag::SET_INTSET | tag::SET_LISTPACK => Kind::Set,
        tag::HASH | tag::HASH_ZIPMAP | tag::HASH_ZIPLIST | tag::HASH_LISTPACK => Kind::Hash,
        tag::ZSET | tag::ZSET_BINARY | tag::ZSET_ZIPLIST | tag::ZSET_LISTPACK => Kind::Zset,
        other if tag::UNSUPPORTED.contains(&other) => return Err(Error::Unsupported(other)),
        _ => return Err(corrupt(0, "a value of an unknown type")),
    })
}

fn open_source<'a>(tag: u8, input: &mut Input<'a>) -> Result<Source<'a>, Error> {
    let layout = match tag {
        tag::STRING => return Ok(Source::Plain(1)),
        tag::LIST | tag::SET => return Ok(Source::Plain(input.count(1)?)),
        tag::HASH | tag::ZSET => return Ok(Source::Plain(input.count(2)?)),
        tag::ZSET_BINARY => return Ok(Source::Plain(input.count(9)?)),
        tag::LIST_QUICKLIST | tag::LIST_QUICKLIST_2 => {
            let is_tagged = tag == tag::LIST_QUICKLIST_2;
            return Ok(Source::Nodes { left: input.count(1)?, is_tagged, open: Node::None });
        }
        tag::LIST_ZIPLIST | tag::HASH_ZIPLIST | tag::ZSET_ZIPLIST => Layout::Ziplist,
        tag::HASH_ZIPMAP => Layout::Zipmap,
        tag::SET_INTSET => Layout::Intset,
        _ => Layout::Listpack,
    };
    Ok(Source::Packed(Blob::open(layout, input.blob()?)?))
}

fn open_node<'a>(is_tagged: bool, input: &mut Input<'a>) -> Result<Node<'a>, Error> {
    let at = input.at();
    let layout = match is_tagged {
        false => Layout::Ziplist,
        true => match input.number()? {
            node::PLAIN => return Ok(Node::Plain),
            node::PACKED => Layout::Listpack,
            _ => return Err(corrupt(at, "a node of an unknown kind")),
        },
    };
    Ok(Node::Packed(Blob::open(layout, input.blob()?)?))
}

fn shown<'t>(entry: Entry<'t>, scratch: &'t mut Scratch) -> &'t [u8] {
    match entry {
        Entry::Bytes(bytes) => bytes,
        Entry::Int(n) => scratch.digits(n),
    }
}

/// The next text.
fn text<'t, 'a: 't>(
    source: &'t mut Source<'a>,
    input: &mut Input<'a>,
    scratch: &'t mut Scratch,
) -> Result<&'t [u8], Error> {
    match source {
        Source::Packed(blob) | Source::Nodes { open: Node::Packed(blob), .. } => {
            Ok(shown(blob.entry()?, scratch))
        }
        Source::Plain(_) | Source::Nodes { .. } => input.string(scratch),
    }
}

/// The next two texts.
fn pair<'t, 'a: 't>(
    source: &'t mut Source<'a>,
    input: &mut Input<'a>,
    first: &'t mut Scratch,
    second: &'t mut Scratch,
) -> Result<(&'t [u8], &'t [u8]), Error> {
    if let Source::Packed(blob) = source {
        let (a, b) = blob.pair()?;
        return Ok((shown(a, first), shown(b, second)));
    }
    Ok((input.string(first)?, input.string(second)?))
}

/// The next text and score.
fn scored<'t, 'a: 't>(
    source: &'t mut Source<'a>,
    input: &mut Input<'a>,
    scratch: &'t mut Scratch,
    as_text: bool,
) -> Result<(&'t [u8], f64), Error> {
    if let Source::Packed(blob) = source {
        let at = input.at();
        let (member, score) = blob.pair()?;
        let score = match score {
            Entry::Int(n) => n as f64,
            Entry::Bytes(text) => score_of(text, at)?,
        };
        return Ok((shown(member, scratch), score));
    }
    let member = input.string(scratch)?;
    let score = if as_text { input.score_text()? } else { input.score_binary()? };
    Ok((member, score))
}
