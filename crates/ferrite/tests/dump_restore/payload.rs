//! Payloads made by hand.

use crc::{CRC_64_REDIS, Crc};

const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_REDIS);

/// The payload of this value, the number of its type in front.
pub(crate) fn of(value: &[u8], version: u16) -> Vec<u8> {
    let mut payload = value.to_vec();
    payload.extend_from_slice(&version.to_le_bytes());
    payload.extend_from_slice(&CRC.checksum(&payload).to_le_bytes());
    payload
}

/// The value of a payload, and its version.
pub(crate) fn open(payload: &[u8]) -> (&[u8], u16) {
    let (value, footer) = payload.split_at(payload.len() - 10);
    (value, u16::from_le_bytes([footer[0], footer[1]]))
}

/// A short string.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 0x4000);
    let len = bytes.len();
    let mut string = vec![0x40 | (len >> 8) as u8, len as u8];
    string.extend_from_slice(bytes);
    string
}

/// A listpack of short elements, each with the bytes that tell what it is in front.
pub(crate) fn listpack(elements: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    for element in elements {
        assert!(element.len() < 128);
        bytes.extend_from_slice(element);
        bytes.push(element.len() as u8);
    }
    bytes.push(0xff);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..6].copy_from_slice(&(elements.len() as u16).to_le_bytes());
    bytes
}

/// A ziplist of short elements, each with the bytes that tell what it is in front.
pub(crate) fn ziplist(elements: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0; 10];
    let (mut before, mut last_at) = (0, 10);
    for element in elements {
        assert!(element.len() < 128);
        last_at = bytes.len();
        bytes.push(before);
        bytes.extend_from_slice(element);
        before = 1 + element.len() as u8;
    }
    bytes.push(0xff);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..8].copy_from_slice(&(last_at as u32).to_le_bytes());
    bytes[8..10].copy_from_slice(&(elements.len() as u16).to_le_bytes());
    bytes
}
