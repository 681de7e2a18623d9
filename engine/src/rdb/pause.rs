//! Values that are read in steps: between two of them, what has been read of the payload is kept
//! without the payload, so that its holder may keep both.

use std::ops::Range;

use crate::rdb::input::{Input, Written};
use crate::rdb::lzf::Unpack;
use crate::rdb::packed::Blob;
use crate::rdb::reader::{Node, Reader, Source};
use crate::rdb::{Error, tag};

/// A reader between two elements, without its payload.
#[derive(Debug)]
pub struct Paused {
    reader: Reader<'static>,
    /// Which part of the payload its packed part is, if it is one.
    part: Option<Range<usize>>,
}

impl Reader<'_> {
    /// Lets go of the payload.
    pub fn pause(self) -> Paused {
        let payload = self.input.bytes();
        let mut part = None;
        let mut pause = |blob: Blob<'_>| {
            let (blob, place) = blob.pause(payload);
            part = place;
            blob
        };
        let source = match self.source {
            Source::Plain(left) => Source::Plain(left),
            Source::Packed(blob) => Source::Packed(pause(blob)),
            Source::Nodes { left, is_tagged, open } => {
                let open = match open {
                    Node::None => Node::None,
                    Node::Plain => Node::Plain,
                    Node::Packed(blob) => Node::Packed(pause(blob)),
                };
                Source::Nodes { left, is_tagged, open }
            }
        };
        let reader = Reader {
            kind: self.kind,
            input: self.input.with_bytes(&[]),
            source,
            text_scores: self.text_scores,
            first: self.first,
            second: self.second,
            seen: self.seen,
            taken: self.taken,
        };
        Paused { reader, part }
    }
}

impl Paused {
    /// The reader that was paused. `payload` is what it was reading.
    pub fn resume(self, payload: &[u8]) -> Reader<'_> {
        let Self { reader, part } = self;
        let mut reader: Reader<'_> = reader;
        reader.input = reader.input.with_bytes(payload);
        reader.source = match reader.source {
            Source::Packed(blob) => Source::Packed(blob.resume(payload, part)),
            Source::Nodes { left, is_tagged, open: Node::Packed(blob) } => {
                let open = Node::Packed(blob.resume(payload, part));
                Source::Nodes { left, is_tagged, open }
            }
            other => other,
        };
        reader
    }
}

/// A payload that is a string, read in steps.
#[derive(Debug)]
pub struct Text {
    form: Form,
    out: Vec<u8>,
}

#[derive(Debug)]
enum Form {
    /// As it is: where in the payload.
    Plain(Range<usize>),
    /// Compressed: where in the payload, how far, and how long it is.
    Packed(Range<usize>, Unpack, u64),
}

impl Text {
    /// Begins; `None` if the value is no string.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn open(payload: &[u8]) -> Result<Option<Self>, Error> {
        let mut input = Input::new(payload);
        if input.byte()? != tag::STRING {
            return Ok(None);
        }
        let written = input.written()?;
        // What is not compressed ends where it was read to.
        let behind = |len: usize| input.at() - len..input.at();
        let (form, out) = match written {
            Written::Bytes(bytes) => (Form::Plain(behind(bytes.len())), Vec::new()),
            Written::Int(n) => (Form::Plain(0..0), n.to_string().into_bytes()),
            Written::Packed { data, len } => {
                (Form::Packed(behind(data.len()), Unpack::default(), len), Vec::new())
            }
        };
        Ok(Some(Self { form, out }))
    }

    /// Reads about `byte_count` bytes more; `true` at the end.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn step(&mut self, payload: &[u8], byte_count: usize) -> Result<bool, Error> {
        match &mut self.form {
            Form::Plain(rest) => {
                self.out.reserve_exact(rest.len());
                let part = &payload[rest.start..rest.end.min(rest.start + byte_count)];
                self.out.extend_from_slice(part);
                rest.start += part.len();
                Ok(rest.start >= rest.end)
            }
            Form::Packed(data, unpack, len) => {
                unpack.step(&payload[data.clone()], *len, byte_count)
            }
        }
    }

    /// The string.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.form {
            Form::Plain(_) => self.out,
            Form::Packed(_, unpack, _) => unpack.into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::{Element, Format, Limits, Writer};

    fn bodies() -> Vec<Vec<u8>> {
        let body = |limits, write: &dyn Fn(&mut Writer)| {
            let mut writer = Writer::new(Format::V10, limits);
            write(&mut writer);
            writer.into_bytes()
        };
        let names: Vec<Vec<u8>> = (0..300).map(|n| format!("element:{n}").into()).collect();
        let mut bodies = Vec::new();
        for limits in [Limits::PACKED, Limits::DEFAULT] {
            bodies.push(body(limits, &|writer| {
                let mut items = writer.begin_list(names.len());
                names.iter().for_each(|name| items.push(name));
                items.finish();
            }));
            bodies.push(body(limits, &|writer| {
                writer.set(names.len(), names.iter().map(Vec::as_slice));
            }));
            bodies.push(body(limits, &|writer| {
                writer.hash(names.len(), names.iter().map(|name| (&name[..], &name[..])));
            }));
            bodies.push(body(limits, &|writer| {
                writer.zset(names.len(), names.iter().map(|name| (&name[..], 1.5)));
            }));
        }
        bodies
    }

    fn elements(body: &[u8], pauses: bool) -> Vec<String> {
        let mut reader = Reader::new(body).expect("it was written here");
        let mut found = Vec::new();
        while let Some(element) = reader.next().expect("it was written here") {
            found.push(match element {
                Element::Str(text) | Element::Item(text) => format!("{text:?}"),
                other => format!("{other:?}"),
            });
            if pauses {
                reader = reader.pause().resume(body);
            }
        }
        found
    }

    #[test]
    fn reader_that_is_paused_after_each_element_reads_the_same() {
        for body in bodies() {
            let whole = elements(&body, false);
            assert_eq!(whole.len(), 300);
            assert_eq!(elements(&body, true), whole);
        }
    }

    fn text_in_steps(body: &[u8], byte_count: usize) -> Result<(Vec<u8>, usize), Error> {
        let mut text = Text::open(body)?.expect("it is a string");
        let mut steps = 1;
        while !text.step(body, byte_count)? {
            steps += 1;
        }
        Ok((text.into_bytes(), steps))
    }

    #[test]
    fn string_of_every_form_is_read_in_steps() {
        let plain: Vec<u8> =
            (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (text, steps_min) in [(plain, 50), (vec![b'x'; 5000], 18), (b"-129".to_vec(), 1)] {
            let mut writer = Writer::new(Format::V10, Limits::DEFAULT);
            writer.string(&text);
            let body = writer.into_bytes();
            let (got, steps) = text_in_steps(&body, 100).expect("it was written here");
            assert_eq!(got, text);
            assert!(steps >= steps_min, "{steps}");
        }
        assert_eq!(Text::open(&bodies()[0]).map(|text| text.is_none()), Ok(true));
    }

    #[test]
    fn compressed_string_of_another_length_is_refused_in_steps() {
        let good = b"\x00\xc3\x09\x32\x01xx\xe0\x25\x00\x01xx";
        assert_eq!(text_in_steps(good, 7).map(|(text, _)| text), Ok(vec![b'x'; 50]));
        for (at, value) in [(3, 0x33), (7, 0xff), (9, 0x05), (4, 0x02)] {
            let mut bad = good.to_vec();
            bad[at] = value;
            assert!(text_in_steps(&bad, 7).is_err(), "{at}");
        }
    }
}
