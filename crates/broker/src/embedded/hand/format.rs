//! A file of what is in hand: a header (magic `LEATHND1`, generation, CRC32C, twelve bytes after the magic) and blocks: length, CRC32C over generation and content,
//! content. A block is a list of entries: `1`, subscription, attempt, position, id: handed out; `2`, subscription, attempt, start, end: back, up to this attempt; `3`,
//! subscription, attempt, start, end: handed out, and durable before, so that these positions stay theirs.

use super::{AllInHand, InHand, Run};
use crate::state::SubscriptionId;

const MAGIC: &[u8; 8] = b"LEATHND1";
pub(super) const HEADER_BYTES: usize = 20;
pub(super) const BLOCK_HEADER_BYTES: usize = 8;
pub(super) const OUT: u8 = 1;
pub(super) const BACK: u8 = 2;
pub(super) const OUT_RUN: u8 = 3;

pub(super) fn header(generation: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn seal(block: &mut [u8], generation: u64) {
    let length = (block.len() - BLOCK_HEADER_BYTES) as u32;
    let crc = checksum(&block[BLOCK_HEADER_BYTES..], generation);
    block[..4].copy_from_slice(&length.to_le_bytes());
    block[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(content: &[u8], generation: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), content)
}

/// The generation of a file and what it says is in hand, up to the first block that is not whole.
pub(super) fn read(content: &[u8]) -> Option<(u64, AllInHand)> {
    let head = content.first_chunk::<HEADER_BYTES>()?;
    let generation = u64::from_le_bytes(*head[8..].first_chunk()?);
    if *head != header(generation) {
        return None;
    }
    let mut all = AllInHand::new();
    let mut rest = &content[HEADER_BYTES..];
    while let Some((head, behind)) = rest.split_first_chunk::<BLOCK_HEADER_BYTES>() {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let crc = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let Some((block, next)) = behind.split_at_checked(length) else { break };
        if checksum(block, generation) != crc {
            break;
        }
        replay(block, &mut all);
        rest = next;
    }
    Some((generation, all))
}

/// Does to what is in hand what the entries of a block say, up to the first that makes no sense.
pub(super) fn replay(mut entries: &[u8], all: &mut AllInHand) {
    while let Some((kind, rest)) = entries.split_first() {
        let parsed = match *kind {
            OUT => replay_out(rest, all),
            BACK => replay_back(rest, all),
            OUT_RUN => replay_out_run(rest, all),
            _ => None,
        };
        match parsed {
            Some(rest) => entries = rest,
            None => return,
        }
    }
}

fn replay_out<'a>(bytes: &'a [u8], all: &mut AllInHand) -> Option<&'a [u8]> {
    let (subscription, bytes) = bytes.split_first_chunk::<4>()?;
    let (attempt, bytes) = bytes.split_first_chunk::<4>()?;
    let (position, bytes) = bytes.split_first_chunk::<8>()?;
    let (id, bytes) = bytes.split_first_chunk::<16>()?;
    let in_hand = InHand { attempt: u32::from_le_bytes(*attempt), id: Some(u128::from_le_bytes(*id)) };
    let subscription = SubscriptionId(u32::from_le_bytes(*subscription));
    all.entry(subscription).or_default().insert(u64::from_le_bytes(*position), in_hand);
    Some(bytes)
}

fn parse_run(bytes: &[u8]) -> Option<(Run, &[u8])> {
    let (subscription, bytes) = bytes.split_first_chunk::<4>()?;
    let (attempt, bytes) = bytes.split_first_chunk::<4>()?;
    let (start, bytes) = bytes.split_first_chunk::<8>()?;
    let (end, bytes) = bytes.split_first_chunk::<8>()?;
    let (subscription, attempt) = (SubscriptionId(u32::from_le_bytes(*subscription)), u32::from_le_bytes(*attempt));
    let (start, end) = (u64::from_le_bytes(*start), u64::from_le_bytes(*end));
    Some((Run { subscription, attempt, start, end }, bytes))
}

fn replay_out_run<'a>(bytes: &'a [u8], all: &mut AllInHand) -> Option<&'a [u8]> {
    let (Run { subscription, attempt, start, end }, bytes) = parse_run(bytes)?;
    let window = all.entry(subscription).or_default();
    (start..end).for_each(|position| window.insert(position, InHand { attempt, id: None }));
    Some(bytes)
}

fn replay_back<'a>(bytes: &'a [u8], all: &mut AllInHand) -> Option<&'a [u8]> {
    let (Run { subscription, attempt, start, end }, bytes) = parse_run(bytes)?;
    if let Some(window) = all.get_mut(&subscription).filter(|_| start < end) {
        let within: Vec<u64> = match end - start > window.len() as u64 {
            true => window.iter().map(|(position, _)| position).filter(|position| (start..end).contains(position)).collect(),
            false => (start..end).collect(),
        };
        for position in within {
            if window.get(position).is_some_and(|in_hand| in_hand.attempt <= attempt) {
                window.remove(position);
            }
        }
    }
    Some(bytes)
}
