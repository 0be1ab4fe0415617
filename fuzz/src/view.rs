//! Typed messages: whatever bytes come, they are a message of the type, and then all of it can be
//! read, or they are refused. Neither takes more stack than a thread has.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::rkyv::util::AlignedVec;
use ringway::rkyv::{self, Archive, Archived, Serialize, rancor};
use ringway::{Describe, Message};
use ringway_fuzz::seeds;

/// Nothing out of line; many bytes are none of it.
#[derive(Archive, Serialize, Describe)]
#[rkyv(crate = ringway::rkyv)]
enum Leaf {
    Bit(bool),
    Letter(char),
    Pair(u16, Option<u64>),
    Nothing,
}

/// All of it may lie out of line, more of its own kind included.
#[derive(Archive, Serialize, Describe)]
#[rkyv(
    crate = ringway::rkyv,
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rancor::Source))
)]
struct Tree {
    name: String,
    leaves: Vec<Leaf>,
    #[rkyv(omit_bounds)]
    branches: Vec<Tree>,
    #[rkyv(omit_bounds)]
    next: Option<Box<Tree>>,
}

fn read_leaf(leaf: &Archived<Leaf>) -> u64 {
    match leaf {
        Archived::<Leaf>::Bit(bit) => u64::from(*bit),
        Archived::<Leaf>::Letter(letter) => u64::from(u32::from(letter.to_native())),
        Archived::<Leaf>::Pair(first, second) => {
            let second = second.as_ref().map_or(0, |second| second.to_native());
            second.wrapping_add(u64::from(first.to_native()))
        }
        Archived::<Leaf>::Nothing => 0,
    }
}

fn read_tree(tree: &Archived<Tree>) -> u64 {
    let mut sum: u64 = tree.name.chars().map(u64::from).sum();
    sum = tree.leaves.iter().fold(sum, |sum, leaf| sum.wrapping_add(read_leaf(leaf)));
    let next = tree.next.as_deref().into_iter();
    next.chain(tree.branches.iter()).fold(sum, |sum, tree| sum.wrapping_add(read_tree(tree)))
}

fn tree(depth: usize) -> Tree {
    Tree {
        name: "tree".repeat(depth + 1),
        leaves: vec![Leaf::Bit(true), Leaf::Letter('é'), Leaf::Pair(7, Some(9)), Leaf::Nothing],
        branches: (0..depth).map(tree).collect(),
        next: (depth > 0).then(|| Box::new(tree(depth - 1))),
    }
}

fn bytes_of<T>(message: &T) -> Vec<u8>
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<
            AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rancor::Error,
        >,
    >,
{
    rkyv::to_bytes::<rancor::Error>(message).expect("it can be written").to_vec()
}

fuzz_target!(
    init: {
        let trees = (0..4).map(|depth| bytes_of(&tree(depth)));
        let leaves = tree(0).leaves;
        seeds::write(trees.chain(leaves.iter().map(bytes_of)).chain([vec![]]));
    },
    |data: &[u8]| {
        let mut bytes: AlignedVec = AlignedVec::new();
        bytes.extend_from_slice(data);
        if let Some(tree) = Tree::view(&bytes) {
            std::hint::black_box(read_tree(tree));
        }
        if let Some(leaf) = Leaf::view(&bytes) {
            std::hint::black_box(read_leaf(leaf));
        }
        let size = size_of::<Archived<Leaf>>();
        for count in [1, bytes.len() / size] {
            for leaf in Leaf::view_run(&bytes, count).unwrap_or_default() {
                std::hint::black_box(read_leaf(leaf));
            }
        }
    }
);
