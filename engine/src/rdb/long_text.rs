//! A long string, written in steps: compressed, or as it is if that is not longer. Byte for byte what
//! [`Writer::string`](super::Writer::string) writes at once.

use std::sync::Arc;

use crate::rdb::lzf::Pack;
use crate::rdb::output::{COMPRESSED, COMPRESSED_BYTES_MAX, put_length};
use crate::rdb::tag;

/// Room for the head of a compressed string: a byte, and two lengths of five bytes.
const HEAD_BYTES: usize = 11;

/// A long string that is being written.
#[derive(Debug)]
pub struct LongText {
    text: Arc<Vec<u8>>,
    out: Vec<u8>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It is compressed, behind room for the head.
    Pack(Pack),
    /// It is copied, from this byte on.
    Copy(usize),
}

impl LongText {
    /// Begins to write `text`, which is longer than any that is written as an integer.
    pub fn new(text: Arc<Vec<u8>>) -> Self {
        // What is not written is not touched; a buffer that grew would be copied again and again.
        let mut out = Vec::with_capacity(text.len() + 2 * HEAD_BYTES);
        out.push(tag::STRING);
        let mut this = Self { text, out, stage: Stage::Copy(0) };
        if this.text.len() > COMPRESSED_BYTES_MAX {
            this.begin_copy();
        } else {
            this.out.extend_from_slice(&[0; HEAD_BYTES]);
            let room = this.text.len().saturating_sub(4);
            this.stage = Stage::Pack(Pack::begin(&mut this.out, room));
        }
        this
    }

    fn begin_copy(&mut self) {
        self.out.truncate(1);
        put_length(&mut self.out, self.text.len() as u64);
        self.stage = Stage::Copy(0);
    }

    /// Writes what comes of about `bytes_max` bytes of the string; `true` when all is written.
    pub fn step(&mut self, bytes_max: usize) -> bool {
        match &mut self.stage {
            Stage::Pack(pack) => match pack.step(&self.text, &mut self.out, bytes_max) {
                None => {
                    self.begin_copy();
                    false
                }
                Some(is_done) => {
                    if is_done {
                        self.put_head();
                    }
                    is_done
                }
            },
            Stage::Copy(from) => {
                let to = self.text.len().min(*from + bytes_max);
                self.out.extend_from_slice(&self.text[*from..to]);
                *from = to;
                to == self.text.len()
            }
        }
    }

    /// Writes the head into its room. It is shorter only if what follows is short as well.
    fn put_head(&mut self) {
        let packed_bytes = self.out.len() - 1 - HEAD_BYTES;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.push(COMPRESSED);
        put_length(&mut head, packed_bytes as u64);
        put_length(&mut head, self.text.len() as u64);
        self.out.splice(1..=HEAD_BYTES, head);
    }

    /// What has been written, without a footer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::{Format, Limits, Writer};

    #[test]
    fn string_in_steps_is_string_at_once() {
        let noise = |n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
        let makes: [&dyn Fn(usize) -> u8; 4] = [&|_| b'x', &|n| n as u8, &noise, &|n| {
            if n < 50_000 { noise(n) } else { b'y' }
        }];
        for make in makes {
            for len in [21, 63, 64, 16_383, 16_384, 100_000, 300_000] {
                let text: Vec<u8> = (0..len).map(make).collect();
                let mut writer = Writer::with_capacity(Format::V10, Limits::DEFAULT, 0);
                writer.string(&text);
                let mut long = LongText::new(Arc::new(text));
                while !long.step(10_000) {}
                assert!(long.into_bytes() == writer.into_bytes(), "{len} bytes");
            }
        }
    }
}
