//! Changes to an input: of bytes, of numbers, of a target's own words, and of whole HTTP/2 frames.
//! The last ones matter because one changed length turns all that follows into noise.

use crate::Target;

/// Longer inputs say nothing that a shorter one does not.
const LEN_MAX: usize = 8 * 1024;
/// Changes to one input at most.
const CHANGES_MAX: usize = 4;
/// An HTTP/2 frame's head (RFC 9113 section 4.1).
const HEAD_LEN: usize = 9;
/// Numbers at which something often ends.
const NUMBERS: [u32; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0x3fff, 0x4000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

/// Makes inputs out of inputs.
pub(crate) struct Mutator {
    rng: fastrand::Rng,
    words: &'static [&'static [u8]],
    frames_from: Option<usize>,
}

impl Mutator {
    pub(crate) fn new(target: &Target, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { rng, words: target.words, frames_from: target.frames_from }
    }

    /// The next input, out of those that were kept.
    pub(crate) fn next(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(kept);
        for _ in 0..self.rng.usize(1..=CHANGES_MAX) {
            match self.frames_from {
                Some(from) if self.rng.bool() => {
                    let other = self.one_of(kept);
                    self.change_frames(&mut input, &other, from);
                }
                _ => {
                    let other = self.one_of(kept);
                    self.change_bytes(&mut input, &other);
                }
            }
        }
        input.truncate(LEN_MAX);
        input
    }

    fn one_of(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        if kept.is_empty() { Vec::new() } else { kept[self.rng.usize(..kept.len())].clone() }
    }

    /// A range within `len`, mostly short.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.rng.usize(..=len);
        let longest = if self.rng.u8(..8) == 0 { len } else { 16 };
        start..(start + self.rng.usize(..=longest)).min(len)
    }

    fn change_bytes(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.rng.usize(..=input.len());
        match self.rng.u8(..8) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.rng.u8(..8);
                }
            }
            2 => {
                let byte = self.rng.u8(..);
                input.insert(at, byte);
            }
            3 => {
                let range = self.range(input.len());
                input.drain(range);
            }
            4 => {
                let range = self.range(input.len());
                let copy = input[range].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                let number = NUMBERS[self.rng.usize(..NUMBERS.len())].to_be_bytes();
                let number = &number[self.rng.usize(..4)..];
                for (byte, new) in input[at..].iter_mut().zip(number) {
                    *byte = *new;
                }
            }
            6 => {
                // The beginning of one and the end of the other.
                let from = self.rng.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ if !self.words.is_empty() => {
                let word = self.words[self.rng.usize(..self.words.len())];
                let end = if self.rng.bool() { at } else { (at + word.len()).min(input.len()) };
                input.splice(at..end, word.iter().copied());
            }
            _ => input.truncate(at),
        }
    }

    fn change_frames(&mut self, input: &mut Vec<u8>, other: &[u8], from: usize) {
        let (preface, rest) = input.split_at(from.min(input.len()));
        let (mut all, preface) = (frames(rest), preface.to_vec());
        let others = frames(&other[from.min(other.len())..]);
        let at = self.rng.usize(..=all.len());
        match self.rng.u8(..7) {
            0 if at < all.len() => drop(all.remove(at)),
            1 if at < all.len() => {
                let times = if self.rng.u8(..16) == 0 { self.rng.usize(..200) } else { 1 };
                let copy = all[at].clone();
                all.splice(at..at, std::iter::repeat_n(copy, times));
            }
            2 if all.len() > 1 => {
                let with = self.rng.usize(..all.len());
                all.swap(at.min(with), with);
            }
            3 | 4 if !others.is_empty() => {
                let frame = others[self.rng.usize(..others.len())].clone();
                all.insert(at, frame);
            }
            _ => {
                if let Some(frame) = all.get_mut(at).filter(|frame| frame.len() >= HEAD_LEN) {
                    self.change_frame(frame);
                }
            }
        }
        *input = preface;
        input.extend(all.concat());
    }

    /// Another kind, other flags, another stream, or another payload with the right length.
    fn change_frame(&mut self, frame: &mut Vec<u8>) {
        match self.rng.u8(..4) {
            0 => frame[3] = self.rng.u8(..11),
            1 => frame[4] ^= 1 << self.rng.u8(..8),
            2 => frame[8] = self.rng.u8(..8),
            _ => {
                let mut payload = frame.split_off(HEAD_LEN);
                self.change_bytes(&mut payload, &[]);
                payload.truncate(LEN_MAX);
                let len = (payload.len() as u32).to_be_bytes();
                frame[..3].copy_from_slice(&len[1..]);
                frame.extend(payload);
            }
        }
    }
}

/// The frames of a connection; what is no whole frame is the last one.
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let len = bytes.get(..3).map_or(usize::MAX, |len| {
            HEAD_LEN + u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize
        });
        let (frame, rest) = bytes.split_at(len.min(bytes.len()));
        all.push(frame.to_vec());
        bytes = rest;
    }
    all
}
