//! The io_uring of one core: sockets, provided buffers, sends, doorbells, and where the core sleeps.
//!
//! Multishot accept and receive deliver into a ring of provided buffers; each connection has at most
//! one send under way, whose bytes the ring owns until it has completed; everything is submitted and
//! waited for in one system call. Knows sockets by file descriptor and by the [`Token`] that its
//! caller gave, nothing of sessions.
//!
//! Unsafe: memory shared with the kernel. Buffers that the kernel reads or writes belong to this
//! module until the kernel says it is done with them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use crate::resp::reply::OutBuf;
use crate::sys::socket::RawAddress;

/// Size of one provided buffer.
pub const BUFFER_BYTES: usize = 8 * 1024;
/// Provided buffers of a core. A power of two.
const BUFFER_COUNT: u16 = 256;
const SUBMISSION_COUNT: u32 = 1024;
const COMPLETION_COUNT: u32 = 8192;
const BUFFER_GROUP: u16 = 0;
/// `IORING_ENTER_GETEVENTS`.
const ENTER_GETEVENTS: u32 = 1;

/// Most pieces of a reply that one send gathers.
const PIECES_MAX: usize = 64;

/// What the caller calls a connection: an index and a generation that tells a reused index apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    /// Index of the session.
    pub index: u32,
    /// Generation, 24 bits.
    pub generation: u32,
}

const OP_ACCEPT: u64 = 1;
const OP_RECV: u64 = 2;
const OP_SEND: u64 = 3;
const OP_BELL: u64 = 4;
const OP_CANCEL: u64 = 5;
const OP_BELL_SENT: u64 = 6;
const OP_CONNECT: u64 = 7;
const OP_WRITE: u64 = 8;
const OP_FLUSH: u64 = 9;

const fn pack(op: u64, index: u32, generation: u32) -> u64 {
    op << 56 | (generation as u64 & 0x00ff_ffff) << 32 | index as u64
}

/// A provided buffer that holds received bytes, until it is given back.
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(u16);

/// Something that the kernel reports.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted on this listener; or accepting failed with this errno.
    Accepted {
        /// The caller's number of it.
        listener: u32,
        /// The connection.
        result: Result<RawFd, i32>,
        /// Whether more will follow.
        armed: bool,
    },
    /// Bytes arrived.
    Received {
        /// The connection.
        token: Token,
        /// Where they are.
        buffer: BufferId,
        /// How many.
        len: usize,
        /// Whether more will follow.
        armed: bool,
    },
    /// Receiving ended: end of stream (0) or an errno. `ENOBUFS` means: arm again.
    ReceiveEnded {
        /// The connection.
        token: Token,
        /// Why.
        errno: i32,
    },
    /// All bytes of a send have left, or it failed with this errno. The buffer comes back.
    Sent {
        /// The connection.
        token: Token,
        /// What was sent.
        buffer: OutBuf,
        /// How much of it left.
        len: usize,
        /// Why not all of it did; 0 if all did.
        errno: i32,
        /// It did not complete within the call that submitted it: the peer reads slowly.
        late: bool,
    },
    /// A connection that was dialled is there (0), or is not: why.
    Connected {
        /// The connection.
        token: Token,
        /// What the kernel says; `ECANCELED` when the deadline came first.
        errno: i32,
    },
    /// Another core rang.
    Doorbell,
    /// A write to a file has ended.
    Written {
        /// The caller's number of it.
        id: u64,
        /// Bytes that were written, or minus an errno.
        result: i32,
        /// What was to be written.
        bytes: Vec<u8>,
    },
    /// A flush of a file has ended.
    Flushed {
        /// The caller's number of it, or of the write that it belongs to.
        id: u64,
        /// 0, or minus an errno.
        result: i32,
    },
}

/// A write to a file, or a flush, under way.
#[derive(Debug)]
struct FileOp {
    id: u64,
    bytes: Vec<u8>,
    /// Completions that are still to come.
    left: u8,
}

/// A connection being made: what the kernel reads until it is there.
#[derive(Debug)]
struct Dialling {
    token: Token,
    address: RawAddress,
    deadline: Timespec,
}

/// A send under way.
#[derive(Debug)]
struct Outgoing {
    fd: RawFd,
    token: Token,
    buffer: OutBuf,
    len: usize,
    sent: usize,
    /// System calls made when it was pushed.
    pushed_at: u64,
    /// Pieces for a gathered send; empty for a plain one.
    pieces: Vec<libc::iovec>,
    header: Box<libc::msghdr>,
}

/// The ring.
pub struct Ring {
    uring: IoUring,
    buffers: Buffers,
    outgoing: Slab<Box<Outgoing>>,
    dialling: Slab<Box<Dialling>>,
    file_ops: Slab<FileOp>,
    backlog: Vec<squeue::Entry>,
    /// Sends pushed since the last submission that should complete within it.
    prompt_sends: usize,
    /// System calls made.
    enters: u64,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.uring.as_raw_fd()).finish_non_exhaustive()
    }
}

impl Ring {
    /// The ring of the calling thread, which alone may use it from now on.
    ///
    /// # Errors
    /// What the kernel says: no io_uring, a flag it does not know, no memory.
    pub fn new() -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_clamp()
            .setup_cqsize(COMPLETION_COUNT)
            .build(SUBMISSION_COUNT)?;
        let buffers = Buffers::new(&uring)?;
        Ok(Self {
            uring,
            buffers,
            outgoing: Slab::new(),
            dialling: Slab::new(),
            file_ops: Slab::new(),
            backlog: Vec::new(),
            prompt_sends: 0,
            enters: 0,
        })
    }

    /// The descriptor that other cores ring.
    pub fn doorbell_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Accepts connections until cancelled. The listener stays open as long as the ring.
    pub fn accept(&mut self, listener: u32, fd: RawFd) {
        let entry = opcode::AcceptMulti::new(Fd(fd))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(pack(OP_ACCEPT, listener, 0));
        self.push(entry);
    }

    /// Connects a socket; [`Event::Connected`] says how it ended, at the latest after `timeout`.
    pub fn connect(&mut self, token: Token, fd: RawFd, to: SocketAddr, timeout: Duration) {
        let dialling =
            Dialling { token, address: RawAddress::of_ip(to), deadline: Timespec::from(timeout) };
        let index = self.dialling.insert(Box::new(dialling));
        let kept = &*self.dialling[index];
        let connect = opcode::Connect::new(Fd(fd), kept.address.pointer(), kept.address.len())
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(pack(OP_CONNECT, index as u32, 0));
        // The deadline's own completion says nothing new.
        let deadline = opcode::LinkTimeout::new(&raw const kept.deadline)
            .build()
            .user_data(pack(OP_CANCEL, 0, 0));
        self.push_linked(connect, deadline);
    }

    /// Receives until the stream ends.
    pub fn receive(&mut self, token: Token, fd: RawFd) {
        let entry = opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build().user_data(pack(
            OP_RECV,
            token.index,
            token.generation,
        ));
        self.push(entry);
    }

    /// Ends receiving for a connection; a last [`Event::ReceiveEnded`] follows if it was armed.
    pub fn cancel_receive(&mut self, token: Token) {
        let target = pack(OP_RECV, token.index, token.generation);
        let entry = opcode::AsyncCancel::new(target).build().user_data(pack(OP_CANCEL, 0, 0));
        self.push(entry);
    }

    /// Ends accepting on a listener.
    pub fn cancel_accept(&mut self, listener: u32) {
        let entry = opcode::AsyncCancel::new(pack(OP_ACCEPT, listener, 0))
            .build()
            .user_data(pack(OP_CANCEL, 0, 0));
        self.push(entry);
    }

    /// Sends all of `buffer`; [`Event::Sent`] gives it back. One send per connection at a time.
    /// `prompt`: it will most likely complete within the call that submits it.
    pub fn send(&mut self, token: Token, fd: RawFd, buffer: OutBuf, prompt: bool) {
        let len = buffer.len();
        // SAFETY: a zeroed `msghdr` is a valid empty one.
        let header = Box::new(unsafe { std::mem::zeroed::<libc::msghdr>() });
        let pushed_at = self.enters;
        let outgoing =
            Outgoing { fd, token, buffer, len, sent: 0, pushed_at, pieces: Vec::new(), header };
        let index = self.outgoing.insert(Box::new(outgoing));
        self.prompt_sends += usize::from(prompt);
        self.push_send(index);
    }

    fn push_send(&mut self, index: usize) {
        let outgoing = &mut *self.outgoing[index];
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let user_data = pack(OP_SEND, index as u32, 0);
        let (bytes, splices) = outgoing.buffer.parts();
        let entry = if splices.is_empty() {
            let rest = &bytes[outgoing.sent..];
            // At most 1 GiB at once: lengths are 32 bits wide, results 31.
            let len = rest.len().min(1 << 30) as u32;
            opcode::Send::new(Fd(outgoing.fd), rest.as_ptr(), len).flags(flags).build()
        } else {
            outgoing.pieces.clear();
            gather(bytes, splices, outgoing.sent, &mut outgoing.pieces);
            outgoing.header.msg_iov = outgoing.pieces.as_mut_ptr();
            outgoing.header.msg_iovlen = outgoing.pieces.len() as _;
            opcode::SendMsg::new(Fd(outgoing.fd), &raw const *outgoing.header)
                .flags(flags as u32)
                .build()
        };
        self.push(entry.user_data(user_data));
    }

    /// Writes all of `bytes` to a file at an offset; [`Event::Written`] gives them back. With `flush`,
    /// the file's data is flushed when they are written: [`Event::Flushed`] follows in any case.
    pub fn write_file(&mut self, id: u64, fd: RawFd, at: u64, bytes: Vec<u8>, flush: bool) {
        let index = self.file_ops.insert(FileOp { id, bytes, left: 1 + u8::from(flush) });
        let bytes = &self.file_ops[index].bytes;
        // At most 1 GiB at once: lengths are 32 bits wide, results 31.
        let len = bytes.len().min(1 << 30) as u32;
        let write = opcode::Write::new(Fd(fd), bytes.as_ptr(), len)
            .offset(at)
            .build()
            .user_data(pack(OP_WRITE, index as u32, 0));
        if flush {
            let write = write.flags(squeue::Flags::IO_LINK);
            self.push_linked(write, flush_entry(fd, index));
        } else {
            self.push(write);
        }
    }

    /// Flushes a file's data; [`Event::Flushed`] follows.
    pub fn flush_file(&mut self, id: u64, fd: RawFd) {
        let index = self.file_ops.insert(FileOp { id, bytes: Vec::new(), left: 1 });
        self.push(flush_entry(fd, index));
    }

    /// Notes that a completion of a file's operation has come. Its number.
    fn file_op_done(&mut self, index: usize) -> Option<u64> {
        let op = self.file_ops.get_mut(index)?;
        let id = op.id;
        op.left -= 1;
        if op.left == 0 {
            self.file_ops.remove(index);
        }
        Some(id)
    }

    /// Rings another core.
    pub fn ring_doorbell(&mut self, doorbell_fd: RawFd) {
        let entry = opcode::MsgRingData::new(Fd(doorbell_fd), 0, pack(OP_BELL, 0, 0), None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(pack(OP_BELL_SENT, 0, 0));
        self.push(entry);
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() {
            return self.backlog.push(entry);
        }
        // SAFETY: buffers that the entry points to belong to `self.outgoing`, `self.file_ops` or
        // `self.buffers`, which keep them in place until the completion has been reaped; descriptors that were
        // closed meanwhile make the kernel answer with an error.
        if unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.backlog.push(entry);
        }
    }

    /// Two entries of which the second belongs to the first: the kernel must see them in one call.
    fn push_linked(&mut self, first: squeue::Entry, second: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: as in `push`; what a connection's entries point to belongs to `self.dialling`
            // until its completion has been reaped, which comes after that of its deadline or
            // cancels it; the bytes of a write belong to `self.file_ops` until its own completion
            // has been reaped. Either both are pushed or none.
            if unsafe { self.uring.submission().push_multiple(&[first.clone(), second.clone()]) }
                .is_ok()
            {
                return;
            }
        }
        self.backlog.push(first);
        self.backlog.push(second);
    }

    /// Bytes of a received buffer.
    #[inline]
    pub fn bytes(&self, buffer: &BufferId, len: usize) -> &[u8] {
        self.buffers.bytes(buffer.0, len)
    }

    /// Gives a buffer back to the kernel.
    #[inline]
    pub fn recycle(&mut self, buffer: BufferId) {
        self.buffers.put(buffer.0);
    }

    /// Whether completions wait to be reaped.
    #[inline]
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Sends not yet submitted that should complete within [`submit`](Self::submit).
    pub fn prompt_sends(&self) -> usize {
        self.prompt_sends
    }

    /// System calls made so far.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Submits everything and waits for `want` completions, at most `timeout`.
    ///
    /// # Errors
    /// Only what cannot be answered by trying again.
    pub fn submit(&mut self, want: usize, timeout: Duration) -> io::Result<()> {
        self.prompt_sends = 0;
        loop {
            let more = !self.backlog.is_empty();
            let want = if more { 0 } else { want };
            self.enters += 1;
            let result = if want == 0 {
                self.submit_now()
            } else {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.uring.submitter().submit_with_args(want, &args)
            };
            match result.map_err(|e| e.raw_os_error().unwrap_or(0)) {
                Ok(_) | Err(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
            if !more {
                return Ok(());
            }
            let backlog = std::mem::take(&mut self.backlog);
            for entry in backlog {
                self.push(entry);
            }
        }
    }

    /// Submits everything and takes in what has completed, without waiting.
    fn submit_now(&mut self) -> io::Result<usize> {
        let count = self.uring.submission().len() as u32;
        // A ring with deferred work completes nothing unless it is asked to. The crate asks only
        // when it waits as well, so a core that always has something to do would hear of nothing.
        // SAFETY: no signal mask is passed, and entries keep their promises as in `push`.
        unsafe { self.uring.submitter().enter::<libc::sigset_t>(count, 0, ENTER_GETEVENTS, None) }
    }

    /// Appends what the kernel has reported to `events`.
    pub fn reap(&mut self, events: &mut Vec<Event>) {
        loop {
            let Some(entry) = self.uring.completion().next() else {
                return;
            };
            let user_data = entry.user_data();
            let index = user_data as u32;
            let token = Token { index, generation: (user_data >> 32) as u32 & 0x00ff_ffff };
            let result = entry.result();
            let armed = cqueue::more(entry.flags());
            match user_data >> 56 {
                OP_RECV => {
                    let event = match cqueue::buffer_select(entry.flags()) {
                        Some(id) if result > 0 => {
                            self.buffers.taken(id);
                            Event::Received {
                                token,
                                buffer: BufferId(id),
                                len: result as usize,
                                armed,
                            }
                        }
                        _ => Event::ReceiveEnded { token, errno: -result },
                    };
                    events.push(event);
                }
                OP_SEND => self.sent(index as usize, result, events),
                OP_ACCEPT => {
                    let result = if result >= 0 { Ok(result) } else { Err(-result) };
                    events.push(Event::Accepted { listener: index, result, armed });
                }
                OP_CONNECT => {
                    if let Some(dialling) = self.dialling.try_remove(index as usize) {
                        let token = dialling.token;
                        events.push(Event::Connected { token, errno: -result });
                    }
                }
                OP_BELL => events.push(Event::Doorbell),
                OP_WRITE => {
                    let op = self.file_ops.get_mut(index as usize);
                    let bytes = op.map(|op| std::mem::take(&mut op.bytes)).unwrap_or_default();
                    if let Some(id) = self.file_op_done(index as usize) {
                        events.push(Event::Written { id, result, bytes });
                    }
                }
                OP_FLUSH => {
                    if let Some(id) = self.file_op_done(index as usize) {
                        events.push(Event::Flushed { id, result });
                    }
                }
                _ => {}
            }
        }
    }

    fn sent(&mut self, index: usize, result: i32, events: &mut Vec<Event>) {
        let Some(outgoing) = self.outgoing.get_mut(index) else {
            return;
        };
        outgoing.sent += result.max(0) as usize;
        let errno = match -result {
            0 => libc::EPIPE,
            // Nothing of it left, and nothing is wrong.
            libc::EINTR | libc::EAGAIN => 0,
            errno => errno.max(0),
        };
        if errno == 0 && outgoing.sent < outgoing.len {
            return self.push_send(index);
        }
        let outgoing = *self.outgoing.remove(index);
        events.push(Event::Sent {
            token: outgoing.token,
            buffer: outgoing.buffer,
            len: outgoing.sent,
            errno,
            late: self.enters > outgoing.pushed_at + 1,
        });
    }

    /// Sends that the kernel has not finished.
    pub fn sends_under_way(&self) -> usize {
        self.outgoing.len()
    }
}

fn flush_entry(fd: RawFd, index: usize) -> squeue::Entry {
    opcode::Fsync::new(Fd(fd)).flags(io_uring::types::FsyncFlags::DATASYNC).build().user_data(pack(
        OP_FLUSH,
        index as u32,
        0,
    ))
}

/// The pieces of a reply from byte `skip` on.
fn gather(
    bytes: &[u8],
    splices: &[crate::resp::reply::Splice],
    mut skip: usize,
    pieces: &mut Vec<libc::iovec>,
) {
    let mut add = |piece: &[u8]| {
        if skip >= piece.len() {
            skip -= piece.len();
        } else if pieces.len() < PIECES_MAX {
            let rest = &piece[skip..];
            skip = 0;
            pieces.push(libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
    };
    let mut from = 0;
    for splice in splices {
        add(&bytes[from..splice.at]);
        add(splice.piece.bytes());
        from = splice.at;
    }
    add(&bytes[from..]);
}

/// The provided buffers: memory that the kernel fills, and the ring that lists the free ones.
struct Buffers {
    memory: NonNull<u8>,
    entries: NonNull<BufRingEntry>,
    tail: u16,
    /// Which buffers are with us, so that none is given back twice.
    with_us: [bool; BUFFER_COUNT as usize],
}

const MEMORY_BYTES: usize = BUFFER_BYTES * BUFFER_COUNT as usize;
const ENTRIES_BYTES: usize = size_of::<BufRingEntry>() * BUFFER_COUNT as usize;

impl Buffers {
    fn new(uring: &IoUring) -> io::Result<Self> {
        let memory = map(MEMORY_BYTES)?;
        let entries = map(ENTRIES_BYTES)?.cast::<BufRingEntry>();
        // SAFETY: `entries` is page-aligned memory of the ring's size, mapped for the life of the
        // process (a core's ring ends with it), so the kernel never sees it vanish.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                BUFFER_COUNT,
                BUFFER_GROUP,
                0,
            )?;
        }
        let with_us = [true; BUFFER_COUNT as usize];
        let mut buffers = Self { memory, entries, tail: 0, with_us };
        (0..BUFFER_COUNT).for_each(|id| buffers.put(id));
        Ok(buffers)
    }

    fn taken(&mut self, id: u16) {
        self.with_us[usize::from(id)] = true;
    }

    #[inline]
    fn bytes(&self, id: u16, len: usize) -> &[u8] {
        invariant!(self.with_us[usize::from(id)] && len <= BUFFER_BYTES, "buffer {id} is not ours");
        // SAFETY: the buffer lies within the mapped memory, the kernel has filled it and does not
        // touch it again before it is put back, which needs `&mut self`.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.as_ptr().add(usize::from(id) * BUFFER_BYTES),
                len,
            )
        }
    }

    #[inline]
    fn put(&mut self, id: u16) {
        invariant!(self.with_us[usize::from(id)], "buffer {id} is given back twice");
        self.with_us[usize::from(id)] = false;
        let slot = usize::from(self.tail & (BUFFER_COUNT - 1));
        // SAFETY: `slot` is within the ring of entries, which this core alone writes; the kernel
        // reads an entry only after the tail has passed it. The tail shares memory with a reserved
        // field of the first entry, which the setters do not touch.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.memory.as_ptr().add(usize::from(id) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `BufRingEntry::tail` is the address of the ring's tail, aligned, alive, and read
        // by the kernel with acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            // Ordering: release, so that the kernel sees the entry before the tail.
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Zeroed, page-aligned memory for the life of the process.
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice.
    let ptr = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if ptr == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(ptr.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const TOKEN: Token = Token { index: 3, generation: 7 };

    /// Submits without waiting until something is reported.
    fn next_event(ring: &mut Ring) -> Event {
        let mut events = Vec::new();
        for _ in 0..100_000 {
            ring.submit(0, Duration::ZERO).expect("the ring works");
            ring.reap(&mut events);
            if let Some(event) = events.pop() {
                return event;
            }
            std::thread::yield_now();
        }
        panic!("nothing is reported without waiting");
    }

    /// A core that freed much memory, and so always had something to do, once heard of no request
    /// until it was done.
    #[test]
    fn submit_without_waiting_takes_in_what_has_completed() {
        let mut ring = Ring::new().expect("io_uring is allowed");
        let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
        ring.receive(TOKEN, ours.as_raw_fd());
        ring.submit(0, Duration::ZERO).expect("the ring works");
        peer.write_all(b"hello").expect("the peer writes");
        let Event::Received { token, buffer, len, .. } = next_event(&mut ring) else {
            panic!("no bytes")
        };
        assert_eq!((token, ring.bytes(&buffer, len)), (TOKEN, &b"hello"[..]));
        ring.recycle(buffer);
    }

    #[test]
    fn connect_says_how_it_ended() {
        let mut ring = Ring::new().expect("io_uring is allowed");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        let mut dial = || {
            let fd = crate::sys::socket::dialler(address).expect("a socket");
            ring.connect(TOKEN, fd.as_raw_fd(), address, Duration::from_secs(5));
            match next_event(&mut ring) {
                Event::Connected { token, errno } => (token, errno),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(dial(), (TOKEN, 0));
        drop(listener);
        assert_eq!(dial(), (TOKEN, libc::ECONNREFUSED));
    }

    #[test]
    fn write_of_a_file_gives_its_bytes_back_and_is_flushed() {
        let mut ring = Ring::new().expect("io_uring is allowed");
        let path = std::env::temp_dir().join(format!("cordis-ring-{}", std::process::id()));
        let file = std::fs::File::create(&path).expect("the folder for temporary files is there");
        ring.write_file(7, file.as_raw_fd(), 3, b"hello".to_vec(), true);
        ring.flush_file(8, file.as_raw_fd());
        let (mut seen, mut flushed) = (None, Vec::new());
        let mut events = Vec::new();
        while seen.is_none() || flushed.len() < 2 {
            ring.submit(1, Duration::from_secs(10)).expect("the ring works");
            ring.reap(&mut events);
            assert!(!events.is_empty(), "nothing ends");
            for event in events.drain(..) {
                match event {
                    Event::Written { id, result, bytes } => seen = Some((id, result, bytes)),
                    Event::Flushed { id, result } => flushed.push((id, result)),
                    other => panic!("{other:?}"),
                }
            }
        }
        flushed.sort_unstable();
        assert_eq!(seen, Some((7, 5, b"hello".to_vec())));
        assert_eq!(flushed, [(7, 0), (8, 0)]);
        assert!(ring.file_ops.is_empty());
        assert_eq!(std::fs::read(&path).expect("it is there"), b"\0\0\0hello");
        std::fs::remove_file(&path).expect("it is ours");
    }

    #[test]
    fn send_gathers_shared_values_and_gives_the_buffer_back() {
        let mut ring = Ring::new().expect("io_uring is allowed");
        let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
        let value = std::sync::Arc::new(vec![b'x'; 40_000]);
        let mut out = OutBuf::default();
        let mut reply = crate::resp::reply::Reply::new(&mut out, Default::default());
        reply.ok();
        reply.bulk_shared(&value);
        reply.int(1);
        let expected = out.to_vec();
        ring.send(TOKEN, ours.as_raw_fd(), out, true);
        ring.submit(0, Duration::ZERO).expect("the ring works");
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).expect("all of it arrives");
        assert!(got == expected);
        let Event::Sent { token, len, errno, .. } = next_event(&mut ring) else {
            panic!("the send has not completed")
        };
        assert_eq!((token, len, errno), (TOKEN, expected.len(), 0));
    }
}
