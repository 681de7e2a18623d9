//! BITFIELD: integers of any width at any bit.

use crate::commands::args::{ArgCursor, Args};
use crate::commands::bitmap::field_offset;
use crate::commands::ctx::{Ctx, Event};
use crate::commands::spec::CommandResult;
use crate::resp::error::CommandError;
use crate::resp::number::parse_i64;
use crate::resp::reply::Reply;
use crate::store::entry::Value;

/// An integer within a string: highest bit first, as the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Field {
    signed: bool,
    /// At most 64 if signed, else 63: every value fits an integer reply.
    width: u32,
    /// Its first bit.
    at: u64,
}

/// What becomes of a value that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Overflow {
    /// Its low bits remain.
    Wrap,
    /// It becomes the nearest that fits.
    Saturate,
    /// It is not stored.
    Fail,
}

/// What is done to a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Operation {
    field: Field,
    action: Action,
}

impl Field {
    fn parse(ctx: &Ctx<'_>, kind: &[u8], at: &[u8]) -> Result<Self, CommandError> {
        let (signed, digits) = match kind {
            [b'i', digits @ ..] => (true, digits),
            [b'u', digits @ ..] => (false, digits),
            _ => return Err(CommandError::BITFIELD_TYPE),
        };
        let width_max = if signed { 64 } else { 63 };
        let width = parse_i64(digits)
            .filter(|width| (1..=width_max).contains(width))
            .ok_or(CommandError::BITFIELD_TYPE)? as u32;
        Ok(Self { signed, width, at: field_offset(ctx, at, width)? })
    }

    /// Bytes of the shortest string that holds it.
    fn string_bytes(self) -> usize {
        ((self.at + u64::from(self.width) - 1) / 8) as usize + 1
    }

    fn min(self) -> i128 {
        if self.signed { -(1 << (self.width - 1)) } else { 0 }
    }

    fn max(self) -> i128 {
        (1 << (self.width - u32::from(self.signed))) - 1
    }

    /// Where it is: the first byte, and how many bits follow it within nine bytes.
    fn place(self) -> (usize, u32) {
        ((self.at / 8) as usize, 72 - (self.at % 8) as u32 - self.width)
    }

    fn mask(self) -> u128 {
        (1 << self.width) - 1
    }

    /// The integer that the low bits of `bits` are.
    fn value_of(self, bits: u128) -> i64 {
        let up = u64::BITS - self.width;
        let top = (bits as u64) << up;
        if self.signed { top as i64 >> up } else { (top >> up) as i64 }
    }

    /// Its value; there are only zeros past the end.
    fn read(self, bytes: &[u8]) -> i64 {
        let (byte, below) = self.place();
        self.value_of(window(bytes, byte) >> below & self.mask())
    }

    /// Stores a value. The string is long enough.
    fn write(self, bytes: &mut [u8], value: i64) {
        let (byte, below) = self.place();
        let mask = self.mask() << below;
        let bits = (value as u128) << below & mask;
        let window = (window(bytes, byte) & !mask | bits) << 56;
        for (to, from) in bytes[byte..].iter_mut().zip(&window.to_be_bytes()[..9]) {
            *to = *from;
        }
    }

    /// What `value` becomes when it is stored; none if it must not be.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        if (self.min()..=self.max()).contains(&value) {
            return Some(value as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.value_of(value as u128 & self.mask())),
            Overflow::Saturate => Some(value.clamp(self.min(), self.max()) as i64),
            Overflow::Fail => None,
        }
    }
}

/// Nine bytes from `byte` on as one number: what any field of 64 bits touches.
fn window(bytes: &[u8], byte: usize) -> u128 {
    let mut window = [0; 9];
    let there = bytes.get(byte..).unwrap_or(&[]);
    let len = there.len().min(window.len());
    window[..len].copy_from_slice(&there[..len]);
    window.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}

/// The operations of a call, in order.
fn parse(ctx: &Ctx<'_>, mut words: ArgCursor<'_>) -> Result<Vec<Operation>, CommandError> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    while words.left() > 0 {
        let left = words.left();
        if left > 1 && words.take("OVERFLOW") {
            overflow = parse_overflow(&mut words)?;
        } else if left > 2 && words.take("GET") {
            let field = parse_field(ctx, &mut words)?;
            operations.push(Operation { field, action: Action::Get });
        } else if left > 3 && words.take("SET") {
            let field = parse_field(ctx, &mut words)?;
            operations.push(Operation { field, action: Action::Set(words.int()?, overflow) });
        } else if left > 3 && words.take("INCRBY") {
            let field = parse_field(ctx, &mut words)?;
            operations.push(Operation { field, action: Action::Add(words.int()?, overflow) });
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(operations)
}

fn parse_overflow(words: &mut ArgCursor<'_>) -> Result<Overflow, CommandError> {
    if words.take("WRAP") {
        Ok(Overflow::Wrap)
    } else if words.take("SAT") {
        Ok(Overflow::Saturate)
    } else if words.take("FAIL") {
        Ok(Overflow::Fail)
    } else {
        Err(CommandError::BITFIELD_OVERFLOW)
    }
}

fn parse_field(ctx: &Ctx<'_>, words: &mut ArgCursor<'_>) -> Result<Field, CommandError> {
    let (Some(kind), Some(at)) = (words.next(), words.next()) else {
        return Err(CommandError::SYNTAX);
    };
    Field::parse(ctx, kind, at)
}

pub(super) fn bitfield(ctx: &mut Ctx<'_>, args: &Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let operations = parse(ctx, args.cursor(2))?;
    match written_bytes(&operations) {
        Some(len) => write_fields(ctx, args, reply, &operations, len),
        None => read_fields(ctx, args, reply, &operations),
    }
}

pub(super) fn bitfield_ro(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let operations = parse(ctx, args.cursor(2))?;
    if written_bytes(&operations).is_some() {
        return Err(CommandError::BITFIELD_READ_ONLY);
    }
    read_fields(ctx, args, reply, &operations)
}

/// Length of the shortest string that holds every field that is written; none if none is.
fn written_bytes(operations: &[Operation]) -> Option<usize> {
    let written = operations.iter().filter(|operation| operation.action != Action::Get);
    written.map(|operation| operation.field.string_bytes()).max()
}

fn read_fields(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    operations: &[Operation],
) -> CommandResult {
    let key = ctx.key(args.at(1));
    let bytes = ctx.read_string(key)?.map(Value::bytes);
    let bytes = bytes.as_deref().unwrap_or(&[]);
    reply.array(operations.len());
    for operation in operations {
        reply.int(operation.field.read(bytes));
    }
    Ok(())
}

fn write_fields(
    ctx: &mut Ctx<'_>,
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    operations: &[Operation],
    len: usize,
) -> CommandResult {
    let key = ctx.key(args.at(1));
    let old_len = ctx.write_string(key)?.map(Value::byte_len);
    let bytes = ctx.edit_string(key, len);
    // Redis: a string that has only grown, because every write failed, is no change.
    let grew = old_len.is_none_or(|old_len| old_len < len);
    let mut changed = false;
    reply.array(operations.len());
    for Operation { field, action } in operations {
        let old = field.read(bytes);
        let (new, shows_old) = match *action {
            Action::Get => (Some(old), true),
            Action::Set(value, overflow) => (field.fit(set_value(*field, value), overflow), true),
            Action::Add(by, overflow) => {
                (field.fit(i128::from(old) + i128::from(by), overflow), false)
            }
        };
        let Some(new) = new else {
            reply.null();
            continue;
        };
        reply.int(if shows_old { old } else { new });
        if new != old {
            field.write(bytes, new);
        }
        // Redis: a write that succeeds is a change if it changed the field or the string grew for it.
        changed |= new != old || (grew && !matches!(action, Action::Get));
    }
    if changed {
        ctx.modified(key, Event::String("setbit"));
    } else if grew {
        // A follower has to grow it as well.
        ctx.effect_state(ctx.db, key);
    }
    Ok(())
}

/// The value that SET means.
fn set_value(field: Field, value: i64) -> i128 {
    // Redis: for an unsigned field a negative value is a very large one.
    if !field.signed {
        return i128::from(value as u64);
    }
    let value = i128::from(value);
    // Redis: reckons the room above a value in 64 bits. For values far below the field's smallest
    // that overflows, and they count as too large.
    let room = field.max() - value;
    let wraps = value < field.min() && room > i128::from(i64::MAX);
    if wraps { value + (1 << 64) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use crate::commands::string::tests::{effects, run};

    proptest::proptest! {
        #[test]
        fn field_reads_what_was_written_and_leaves_its_neighbours(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 20),
            signed: bool,
            width in 1u32..=64,
            at in 0u64..90,
            value: i64,
        ) {
            let width = if signed { width } else { width.min(63) };
            let field = Field { signed, width, at };
            let value = field.fit(i128::from(value), Overflow::Wrap).expect("wrapping never fails");
            let mut changed = bytes.clone();
            field.write(&mut changed, value);
            assert_eq!(field.read(&changed), value);
            field.write(&mut changed, field.read(&bytes));
            assert_eq!(changed, bytes);
        }
    }

    #[test]
    fn field_at_the_very_end_stays_within_the_string() {
        let mut bytes = [0; 8];
        let field = Field { signed: true, width: 64, at: 0 };
        field.write(&mut bytes, i64::MIN);
        assert_eq!((bytes[0], field.read(&bytes)), (0x80, i64::MIN));
        assert_eq!(Field { signed: false, width: 8, at: 1 << 32 }.read(&bytes), 0);
    }

    #[test]
    fn overflow_follows_the_latest_policy() {
        let mut bare = Bare::new(1, 1);
        let call = "BITFIELD k SET u8 0 255 INCRBY u8 0 10 OVERFLOW SAT INCRBY u8 0 1000 \
                    INCRBY i8 8 -1000 OVERFLOW FAIL INCRBY u8 0 1 GET i8 8";
        let want = "*6\\r\\n:0\\r\\n:9\\r\\n:255\\r\\n:-128\\r\\n$-1\\r\\n:-128\\r\\n";
        assert_eq!(run(&mut bare, call), want);
        let set = "BITFIELD k OVERFLOW SAT SET u4 0 -1 GET u4 0";
        assert_eq!(run(&mut bare, set), "*2\\r\\n:15\\r\\n:15\\r\\n");
        for (value, stored) in [(-200, -128), (i64::MIN + 128, -128), (i64::MIN + 127, 127)] {
            let set = format!("BITFIELD k OVERFLOW SAT SET i8 0 {value} SET i8 0 0");
            let reply = run(&mut bare, &set);
            assert!(reply.ends_with(&format!(":{stored}\\r\\n")), "{value}: {reply}");
        }
    }

    #[test]
    fn failed_write_that_makes_a_string_is_journalled() {
        let mut bare = Bare::new(1, 1);
        let call = "BITFIELD k OVERFLOW FAIL SET u8 8 256";
        assert_eq!(effects(&mut bare, call), ["SET k \\x00\\x00"]);
        assert_eq!(run(&mut bare, "STRLEN k"), ":2\\r\\n");
        assert_eq!(effects(&mut bare, call), Vec::<String>::new());
    }

    #[test]
    fn bitfield_refuses_types_and_offsets_that_do_not_exist() {
        let mut bare = Bare::new(1, 1);
        for kind in ["u64", "i65", "i0", "u-1", "I8", "8", "\"\"", "u08", "u"] {
            let reply = run(&mut bare, &format!("BITFIELD k GET {kind} 0"));
            assert!(reply.starts_with("-ERR Invalid bitfield type."), "{kind}: {reply}");
        }
        let refused = "-ERR bit offset is not an integer or out of range\\r\\n";
        for at in ["-1", "4294967296", "#536870912", "##1", "#", "#-1", "#9223372036854775807"] {
            assert_eq!(run(&mut bare, &format!("BITFIELD k GET u8 {at}")), refused, "{at}");
        }
        let refused = "-ERR BITFIELD_RO only supports the GET subcommand\\r\\n";
        assert_eq!(run(&mut bare, "BITFIELD_RO k SET u8 0 1"), refused);
    }
}
