//! Packets that no socket of the kernel makes or reads for us: ICMP echo, and SCTP, whose checksum
//! connection tracking verifies.

/// Room for any packet of ours.
pub const LONGEST: usize = 256;
/// SCTP chunks (RFC 9260, section 3.3).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// An echo request that carries a token. Over IPv6 the kernel fills in the checksum.
pub fn echo_request(is_ipv4: bool, id: u16, token: u64) -> Vec<u8> {
    echo(if is_ipv4 { 8 } else { 128 }, id, token)
}

/// The same of an echo reply.
pub fn echo_reply(is_ipv4: bool, id: u16, token: u64) -> Vec<u8> {
    echo(if is_ipv4 { 0 } else { 129 }, id, token)
}

fn echo(kind: u8, id: u16, token: u64) -> Vec<u8> {
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(token.to_be_bytes());
    let words = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The token of an echo reply, as a raw socket gives it.
pub fn read_echo_reply(is_ipv4: bool, bytes: &[u8]) -> Option<u64> {
    let packet = without_header(is_ipv4, bytes)?;
    let wanted = if is_ipv4 { 0 } else { 129 };
    let token = packet.get(8..16)?.try_into().ok()?;
    (*packet.first()? == wanted).then_some(u64::from_be_bytes(token))
}

/// The first packet of an SCTP association.
pub fn sctp_init(from: u16, to: u16, tag: u32) -> Vec<u8> {
    sctp(from, to, 0, INIT, tag, &[])
}

/// The answer to `init`, when that is a valid first packet.
pub fn sctp_init_ack(is_ipv4: bool, init: &[u8]) -> Option<Vec<u8>> {
    let packet = without_header(is_ipv4, init)?;
    let is_init = packet.get(12) == Some(&INIT) && packet.get(4..8)? == [0; 4];
    if !is_init || !has_valid_checksum(packet) {
        return None;
    }
    let tag = u32::from_be_bytes(packet.get(16..20)?.try_into().ok()?);
    // A state cookie (RFC 9260, section 3.3.3) of four bytes.
    let cookie = [0, 7, 0, 8, 1, 2, 3, 4];
    Some(sctp(word(packet, 2)?, word(packet, 0)?, tag, INIT_ACK, tag ^ u32::MAX, &cookie))
}

/// The tag of the first packet that a valid answer is for.
pub fn read_init_ack(is_ipv4: bool, bytes: &[u8]) -> Option<u32> {
    let packet = without_header(is_ipv4, bytes)?;
    let is_answer = packet.get(12) == Some(&INIT_ACK) && has_valid_checksum(packet);
    let tag = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
    is_answer.then_some(tag)
}

fn sctp(from: u16, to: u16, verification: u32, chunk: u8, tag: u32, more: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + more.len()).unwrap();
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(verification.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    // Window, streams out and in, first sequence number.
    packet.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    packet.extend(more);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

fn has_valid_checksum(packet: &[u8]) -> bool {
    let mut zeroed = packet.to_vec();
    zeroed[8..12].fill(0);
    crc32c(&zeroed).to_le_bytes() == packet[8..12]
}

/// CRC-32C (RFC 9260, appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

/// A raw socket of IPv4 gives the header too.
fn without_header(is_ipv4: bool, bytes: &[u8]) -> Option<&[u8]> {
    if !is_ipv4 {
        return Some(bytes);
    }
    bytes.get(usize::from(bytes.first()? & 15) * 4..)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
#[test]
fn the_checksum_is_that_of_the_specification() {
    // The check value of CRC-32C in the usual catalogues.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
