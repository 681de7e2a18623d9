//! Every error text on the wire, once. Redis' words where Redis has them.

use std::borrow::Cow;

/// An error reply, without the leading `-` and the line end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandError(Cow<'static, str>);

impl CommandError {
    /// The option or its position is wrong.
    pub const SYNTAX: Self = Self::fixed("ERR syntax error");
    /// The key holds another type.
    pub const WRONG_TYPE: Self =
        Self::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// No 64-bit integer.
    pub const NOT_INTEGER: Self = Self::fixed("ERR value is not an integer or out of range");
    /// No number.
    pub const NOT_FLOAT: Self = Self::fixed("ERR value is not a valid float");
    /// A number below zero where none may be.
    pub const NOT_POSITIVE: Self = Self::fixed("ERR value is out of range, must be positive");
    /// The key does not exist, for commands that need it.
    pub const NO_SUCH_KEY: Self = Self::fixed("ERR no such key");
    /// An index outside of the value.
    pub const INDEX_OUT_OF_RANGE: Self = Self::fixed("ERR index out of range");
    /// An increment that leaves 64 bits.
    pub const OVERFLOW: Self = Self::fixed("ERR increment or decrement would overflow");
    /// An increment to something that is no number.
    pub const NAN_OR_INFINITY: Self = Self::fixed("ERR increment would produce NaN or Infinity");
    /// A string beyond the limit.
    pub const STRING_TOO_LONG: Self =
        Self::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// An offset that no string can have.
    pub const OFFSET_OUT_OF_RANGE: Self = Self::fixed("ERR offset is out of range");
    /// A bit offset that no string can have.
    pub const BIT_OFFSET: Self = Self::fixed("ERR bit offset is not an integer or out of range");
    /// A database that does not exist.
    pub const DB_INDEX: Self = Self::fixed("ERR DB index is out of range");
    /// Source and destination are the same.
    pub const SAME_OBJECT: Self = Self::fixed("ERR source and destination objects are the same");
    /// Memory is over the limit and nothing can be evicted.
    pub const OOM: Self = Self::fixed("OOM command not allowed when used memory > 'maxmemory'.");
    /// Not authenticated.
    pub const NO_AUTH: Self = Self::fixed("NOAUTH Authentication required.");
    /// Wrong name or password.
    pub const WRONG_PASS: Self =
        Self::fixed("WRONGPASS invalid username-password pair or user is disabled.");
    /// EXEC of a transaction that was refused while it was queued.
    pub const EXEC_ABORT: Self =
        Self::fixed("EXECABORT Transaction discarded because of previous errors.");
    /// A cursor that SCAN never gave.
    pub const INVALID_CURSOR: Self = Self::fixed("ERR invalid cursor");

    /// A text that is known when the program is built.
    pub(crate) const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// A text with something of the call in it. Only for functions of this file.
    const fn owned(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// The line as it goes on the wire, without `-` and line end.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Wrong number of words. `name` as in the spec, `container|sub` for subcommands.
    pub fn wrong_arity(name: &str) -> Self {
        Self::owned(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// A command that does not exist, with the beginning of its arguments.
    pub fn unknown_command(name: &[u8], args: &[&[u8]]) -> Self {
        let mut beginning = String::new();
        for arg in args {
            // Redis: quotes arguments until about 128 bytes are shown.
            if beginning.len() >= 128 {
                break;
            }
            let room = 128 - beginning.len();
            let shown = &arg[..arg.len().min(room)];
            beginning.push_str(&format!("'{}' ", String::from_utf8_lossy(shown)));
        }
        let name = String::from_utf8_lossy(&name[..name.len().min(128)]);
        Self::owned(format!(
            "ERR unknown command '{name}', with args beginning with: {beginning}"
        ))
    }

    /// A subcommand that does not exist. `container` as the spec has it.
    pub fn unknown_subcommand(sub: &[u8], container: &str) -> Self {
        let sub = String::from_utf8_lossy(&sub[..sub.len().min(128)]);
        Self::owned(format!(
            "ERR unknown subcommand '{sub}'. Try {} HELP.",
            container.to_ascii_uppercase()
        ))
    }

    /// An expire time that is not allowed. `name` is the command's.
    pub fn invalid_expire(name: &str) -> Self {
        Self::owned(format!("ERR invalid expire time in '{name}' command"))
    }
}
