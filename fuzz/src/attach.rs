//! Real files of a channel with anything in them: both roles open the channel, use what they get, and
//! close it, while more of it changes.

#![no_main]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::input::Input;
use ringway_fuzz::seeds;
use ringway_shm::layout::{ABI_MAJOR, ENDIAN_TAG, FileHeader, HEADER_LEN};
use ringway_shm::{
    Consumer, Kind, Options, Overflow, Read, Receiving, RecvError, Schema, SendError, Sending,
    Wait, receiving, sending,
};

/// Most messages that one input may make somebody receive or send.
const MESSAGES: usize = 80;

/// A sound channel, as bytes, that the inputs change.
struct Template {
    options: Options,
    channel: PathBuf,
    control: Vec<u8>,
    segment: Vec<u8>,
}

/// Bits of an input's first byte.
mod flag {
    /// The input is the files, and not changes to sound ones.
    pub const WHOLE: u8 = 1;
    /// What is checked before the sections and options is made right, in `control` ...
    pub const MEND_CONTROL: u8 = 2;
    /// ... and in the segment.
    pub const MEND_SEGMENT: u8 = 4;
    /// The producer comes first.
    pub const PRODUCER_FIRST: u8 = 8;
    /// The channel is a broadcast ...
    pub const BROADCAST: u8 = 16;
    /// ... that overwrites.
    pub const OVERWRITE: u8 = 32;
    /// The channel is one of many to many.
    pub const MPMC: u8 = 64;
}

impl Template {
    fn get(flags: u8) -> &'static Self {
        static TEMPLATES: [OnceLock<Template>; 4] = [const { OnceLock::new() }; 4];
        if flags & flag::MPMC != 0 {
            return TEMPLATES[3].get_or_init(|| {
                Self::make(Some(Kind::Mpmc), None).expect("a sound channel can be made")
            });
        }
        let overflow = match flags & (flag::BROADCAST | flag::OVERWRITE) {
            0 | flag::OVERWRITE => None,
            flag::BROADCAST => Some(Overflow::Block),
            _ => Some(Overflow::Overwrite),
        };
        let which = overflow.map_or(0, |overflow| 1 + overflow as usize);
        let kind = overflow.map(|_| Kind::Broadcast);
        TEMPLATES[which]
            .get_or_init(|| Self::make(kind, overflow).expect("a sound channel can be made"))
    }

    fn make(
        kind: Option<Kind>,
        overflow: Option<Overflow>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let root = std::env::var_os("RINGWAY_FUZZ_DIR").ok_or("RINGWAY_FUZZ_DIR is not set")?;
        let directory = PathBuf::from(root).join(format!("attach-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let options = Options {
            directory: Some(directory.clone()),
            capacity: (kind != Some(Kind::Mpmc)).then_some(4096),
            slots: (kind == Some(Kind::Mpmc)).then_some(4),
            slot: (kind == Some(Kind::Mpmc)).then_some(1024),
            wait: Some(Wait::Park),
            kind,
            overflow,
            ..Options::new(
                "fuzz",
                Schema { fingerprint: 1, text: "a: u64\n".into(), payload_align: 16 },
            )
        };
        let channel = directory.join("fuzz");
        // Another template's, as an input left it.
        let _ = fs::remove_dir_all(&channel);
        let mut sender = sending(&options)?;
        let mut receiver = receiving(&options, Read::Every)?;
        for len in [0, 1000, 1000, 900] {
            put(&mut sender, len)?;
            take(&mut receiver)?;
        }
        assert!(matches!(take(&mut receiver), Err(RecvError::Empty)));
        // Wraps.
        put(&mut sender, 600)?;
        match &mut sender {
            Sending::InPlace(end) => end.try_claim_array(24, 5)?.queue(5)?,
            Sending::Copied(end) => end.claim_array(24, 5)?.queue(5)?,
            // Has no arrays.
            Sending::Shared(_) => {}
        }
        put(&mut sender, 20)?;
        // Of a broadcast, whose last one clears all away, what is there now. Of a queue, too: with its
        // participants.
        let live = kind.map(|_| -> std::io::Result<_> {
            Ok((fs::read(channel.join("control"))?, fs::read(channel.join("000001"))?))
        });
        drop(receiver);
        drop(sender);
        let (control, segment) = match live {
            Some(files) => files?,
            None => (fs::read(channel.join("control"))?, fs::read(channel.join("000001"))?),
        };
        Ok(Self {
            options: Options {
                capacity: None,
                slots: None,
                slot: None,
                wait: None,
                kind: None,
                overflow: None,
                ..options
            },
            channel,
            control,
            segment,
        })
    }

    /// The two files of an input.
    fn files(&self, flags: u8, input: &mut Input<'_>) -> [Vec<u8>; 2] {
        let mut files = if flags & flag::WHOLE != 0 {
            let len = usize::from(input.short());
            [input.slice(len).to_vec(), input.slice(usize::MAX).to_vec()]
        } else {
            let mut files = [self.control.clone(), self.segment.clone()];
            for _ in 0..input.byte() % 16 {
                change(input, |which, at, bytes| {
                    let file = &mut files[which];
                    let at = at % file.len();
                    let end = file.len().min(at + bytes.len());
                    file[at..end].copy_from_slice(&bytes[..end - at]);
                });
            }
            files
        };
        for (file, bit) in files.iter_mut().zip([flag::MEND_CONTROL, flag::MEND_SEGMENT]) {
            if flags & bit != 0 {
                self.mend(file, bit);
            }
        }
        files
    }

    fn mend(&self, file: &mut [u8], bit: u8) {
        let sound = if bit == flag::MEND_CONTROL { &self.control } else { &self.segment };
        let Some(front) = file.first_chunk_mut::<HEADER_LEN>() else { return };
        let mut header = FileHeader::from_bytes(front);
        header.magic.copy_from_slice(&sound[..8]);
        header.boot_id.copy_from_slice(&sound[64..80]);
        header.abi_major = ABI_MAJOR;
        header.header_len = HEADER_LEN as u32;
        header.endian = ENDIAN_TAG;
        header.crc = header.expected_crc();
        *front = header.to_bytes();
    }

    fn put(&self, files: &[Vec<u8>; 2]) {
        let _ = fs::remove_dir_all(&self.channel);
        fs::create_dir(&self.channel).expect("the directory was removed just now");
        for (name, bytes) in ["control", "000001"].into_iter().zip(files) {
            fs::write(self.channel.join(name), bytes).expect("there is memory for 64 KiB");
        }
    }

    /// Changes files that are in use, without making them shorter, which is the one thing that
    /// nobody can live with.
    fn poke(&self, input: &mut Input<'_>) {
        change(input, |which, at, bytes| {
            let names: [&[&str]; 2] = [&["control"], &["000001", "000002"]];
            for name in names[which] {
                let _ = poke(&self.channel.join(name), at, bytes);
            }
        });
    }
}

/// One change: which file, where, and what.
fn change(input: &mut Input<'_>, apply: impl FnOnce(usize, usize, &[u8])) {
    let which = usize::from(input.byte() & 1);
    let at = usize::from(input.short());
    let len = usize::from(input.byte() % 32);
    apply(which, at, input.slice(len));
}

fn poke(path: &Path, at: usize, bytes: &[u8]) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let len = file.metadata()?.len() as usize;
    let at = at % len.max(1);
    file.write_all_at(&bytes[..bytes.len().min(len - at)], at as u64)
}

fn put(sender: &mut Sending, len: usize) -> Result<(), SendError> {
    match sender {
        Sending::InPlace(end) => end.try_claim(len)?.commit(),
        Sending::Copied(end) => end.claim(len)?.commit(),
        Sending::Shared(end) => end.try_claim(len)?.commit(),
    }
}

fn take(receiver: &mut Receiving) -> Result<u8, RecvError> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum ^ byte);
    match receiver {
        Receiving::InPlace(end) => end.try_recv().map(|message| sum(&message)),
        Receiving::Copied(end) => end.try_recv().map(|message| sum(&message)),
        Receiving::Shared(end) => end.try_recv().map(|message| sum(&message)),
    }
}

fn receive(receiver: &mut Receiving) {
    match receiver {
        Receiving::InPlace(end) => receive_in_place(end),
        Receiving::Copied(_) | Receiving::Shared(_) => {
            for _ in 0..MESSAGES {
                if std::hint::black_box(take(receiver)) == Err(RecvError::Empty) {
                    break;
                }
            }
        }
    }
}

fn receive_in_place(consumer: &mut Consumer) {
    for _ in 0..MESSAGES {
        match consumer.try_recv() {
            Ok(message) => {
                std::hint::black_box(message.iter().fold(0_u8, |sum, byte| sum ^ byte));
            }
            Err(RecvError::Empty) => break,
            Err(_) => {}
        }
    }
    if let Ok(mut batch) = consumer.try_recv_batch(5) {
        while let Ok(Some(message)) = batch.next() {
            std::hint::black_box(message.payload.iter().fold(0_u8, |sum, byte| sum ^ byte));
        }
    }
    let _ = consumer.recv_timeout(Duration::from_nanos(1)).map(|message| message.len());
}

fn send(sender: &mut Sending, input: &mut Input<'_>) {
    let producer = match sender {
        Sending::InPlace(end) => end,
        Sending::Copied(_) | Sending::Shared(_) => {
            for _ in 0..MESSAGES {
                if put(sender, usize::from(input.byte()) * 8).is_err() {
                    break;
                }
            }
            return;
        }
    };
    for _ in 0..MESSAGES {
        let Ok(mut claim) = producer.try_claim(usize::from(input.byte()) * 8) else { break };
        claim.fill(1);
        if claim.commit().is_err() {
            break;
        }
    }
    // What is left of the ring is full: the next claim looks at the consumer's page.
    let _ = producer.claim_timeout(2000, Duration::from_nanos(1)).map(drop);
}

fuzz_target!(
    init: {
        let flags = [0, 2, 4, 6, 14, 22, 30, 54, 62, 64, 70, 78];
        let plain = flags.map(|flags| vec![flags, 0, 1, 2, 3]);
        let changed = flags.map(|flags| vec![flags, 1, 1, 0, 0x20, 8, 5, 0, 0, 0, 1, 0, 0, 1]);
        let template = Template::get(0);
        let whole = [6, 0].map(|flags| {
            let len = (template.control.len() as u16).to_le_bytes();
            [&[flags | 1][..], &len, &template.control, &template.segment].concat()
        });
        seeds::write(plain.into_iter().chain(changed).chain(whole));
    },
    |data: &[u8]| {
        let mut input = Input(data);
        let flags = input.byte();
        let template = Template::get(flags);
        let files = template.files(flags, &mut input);
        template.put(&files);
        let mut producer = None;
        if flags & flag::PRODUCER_FIRST != 0 {
            producer = sending(&template.options).ok();
        }
        // The second attempt finds given up what the first one could not read.
        let read = if data.len() % 2 == 0 { Read::Every } else { Read::Newest };
        let consumer = receiving(&template.options, read);
        let mut consumer = consumer.or_else(|_| receiving(&template.options, Read::Every)).ok();
        let mut producer = producer.or_else(|| sending(&template.options).ok());
        for _ in 0..3 {
            if let Some(consumer) = &mut consumer {
                receive(consumer);
            }
            if let Some(producer) = &mut producer {
                send(producer, &mut input);
            }
            template.poke(&mut input);
        }
        if flags & flag::PRODUCER_FIRST != 0 {
            drop(producer);
            drop(consumer);
        } else {
            drop(consumer);
            drop(producer);
        }
        let _ = ringway_shm::remove(&template.options);
    }
);
