//! Addresses: whatever is typed, the result is an address that prints as something with the same
//! meaning, or a refusal in words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::Address;
use ringway_fuzz::seeds;

const SEEDS: &[&str] = &[
    "",
    "ticks",
    "shm://ticks",
    "shm://A.b_c-9?capacity=4MiB&wait=spin&align=16&hold_cpu_latency=on&kind=spsc",
    "shm://x?capacity=65536",
    "shm://x?capacity=4TiB&wait=park",
    "shm://x?capacity=18446744073709551616",
    "shm://x?capacity=4MB",
    "shm://x?capacity=",
    "shm://x?capacity",
    "shm://x?capcity=1KiB",
    "shm://x?wait=adaptive&wait=adaptive",
    "shm://x?&",
    "shm://x??",
    "shm:///x",
    "shm://..",
    "shm://ä",
    "tcp://10.0.0.2:7000/ticks",
    "tcp://[fd00::2]:0/ticks?side=bind&backend=uring&io=inline&wait=park&capacity=64KiB",
    "tcp://host:1/ticks?backend=auto",
    "tcp://host:1/ticks?congestion=bbr&send_buffer=4MiB&recv_buffer=1",
    "tcp://host:1/ticks?congestion=no control",
    "tcp://host:1/ticks?backend=epol",
    "shm://ticks?backend=epoll",
    "://",
];

fuzz_target!(
    init: seeds::write(SEEDS.iter().map(|seed| seed.as_bytes().to_vec())),
    |data: &[u8]| {
        let Ok(text) = std::str::from_utf8(data) else { return };
        match text.parse::<Address>() {
            Ok(address) => {
                assert_eq!(address.to_string(), text, "it prints as it was typed");
                assert!(!address.name().contains('/') && !address.name().starts_with('.'));
                assert!((1..=128).contains(&address.name().len()));
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.len() > 20 && text.len() < 2000, "{text}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
    }
);
