//! A byte stream between a connector and a binder that holds little, delivers in pieces, and is cut
//! after the byte that it was told.

use std::collections::VecDeque;

/// The two ends of a stream, and its two directions, named after who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Connector,
    Binder,
}

pub const SIDES: [Side; 2] = [Side::Connector, Side::Binder];

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Connector => Self::Binder,
            Self::Binder => Self::Connector,
        }
    }
}

/// When a wire breaks: as soon as so many bytes that this side wrote have been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub writer: Side,
    pub after: u64,
    /// Whether what is on its way at that moment still arrives, as behind a peer that closed, or is
    /// lost, as by a reset.
    pub drains: bool,
}

/// What a read finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    Bytes(Vec<u8>),
    Nothing,
    /// The end, orderly or not: who reads can't tell.
    Gone,
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    delivered: u64,
    /// The writer will write no more.
    shut: bool,
}

/// One connection.
pub struct Wire {
    pipes: [Pipe; 2],
    capacity: usize,
    cut: Option<Cut>,
    pub broken: bool,
    /// Who has let go of it.
    closed: [bool; 2],
}

impl Wire {
    pub fn new(capacity: usize, cut: Option<Cut>) -> Self {
        let mut wire =
            Self { pipes: Default::default(), capacity, cut, broken: false, closed: [false; 2] };
        wire.look_at_cut();
        wire
    }

    /// Takes up to `most` bytes; fewer when it is full. `None`: it is broken.
    pub fn write(&mut self, writer: Side, bytes: &[u8], most: usize) -> Option<usize> {
        if self.broken || self.closed[writer.other() as usize] {
            return None;
        }
        let pipe = &mut self.pipes[writer as usize];
        assert!(!pipe.shut, "written to after shutdown");
        let len = bytes.len().min(most).min(self.capacity.saturating_sub(pipe.bytes.len()));
        pipe.bytes.extend(&bytes[..len]);
        Some(len)
    }

    /// Takes a few bytes, whatever is in it.
    pub fn write_whole(&mut self, writer: Side, bytes: &[u8]) {
        self.pipes[writer as usize].bytes.extend(bytes);
    }

    /// Bytes that a write would take.
    pub fn room(&self, writer: Side) -> usize {
        self.capacity.saturating_sub(self.pipes[writer as usize].bytes.len())
    }

    pub fn read(&mut self, reader: Side, most: usize) -> Read {
        let writer = reader.other();
        let mut len = self.pipes[writer as usize].bytes.len().min(most);
        if let (Some(cut), false) = (self.cut, self.broken)
            && cut.writer == writer
        {
            len = len.min((cut.after - self.pipes[writer as usize].delivered) as usize);
        }
        let pipe = &mut self.pipes[writer as usize];
        if len == 0 {
            let over = self.broken || pipe.shut || self.closed[writer as usize];
            return if over && pipe.bytes.is_empty() { Read::Gone } else { Read::Nothing };
        }
        pipe.delivered += len as u64;
        let bytes = pipe.bytes.drain(..len).collect();
        self.look_at_cut();
        Read::Bytes(bytes)
    }

    pub fn shut(&mut self, writer: Side) {
        self.pipes[writer as usize].shut = true;
    }

    pub fn close(&mut self, side: Side) {
        self.closed[side as usize] = true;
    }

    /// Both have let go.
    pub fn is_forgotten(&self) -> bool {
        self.closed == [true; 2]
    }

    pub fn delivered(&self, writer: Side) -> u64 {
        self.pipes[writer as usize].delivered
    }

    /// Breaks now.
    pub fn sever(&mut self, drains: bool) {
        self.broken = true;
        if !drains {
            self.pipes.iter_mut().for_each(|pipe| pipe.bytes.clear());
        }
    }

    fn look_at_cut(&mut self) {
        if let Some(cut) = self.cut
            && !self.broken
            && self.pipes[cut.writer as usize].delivered >= cut.after
        {
            // Behind the byte of the cut nothing comes, in that direction.
            self.pipes[cut.writer as usize].bytes.clear();
            self.sever(cut.drains);
        }
    }
}
