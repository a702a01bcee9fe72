//! Integers as LEB128, seven bits a byte, lowest first; those with a sign as zigzag: it moves to the lowest bit.

use super::StateError;

const MALFORMED: StateError = StateError::Malformed("integer");

pub fn put_int(value: i64, out: &mut Vec<u8>) {
    put_unsigned(((value << 1) ^ (value >> 63)) as u64, out);
}

pub fn put_unsigned(value: u64, out: &mut Vec<u8>) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn take_int(input: &mut &[u8]) -> Result<i64, StateError> {
    let bits = take_unsigned(input)?;
    Ok((bits >> 1) as i64 ^ -((bits & 1) as i64))
}

pub fn take_unsigned(input: &mut &[u8]) -> Result<u64, StateError> {
    let mut bits = 0_u64;
    // 64 bits are nine groups of seven and a tenth that holds one bit.
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first().ok_or(MALFORMED)?;
        *input = rest;
        let group = u64::from(byte & 0x7f);
        let too_wide = shift == 63 && group > 1;
        let padded = *byte == 0 && shift > 0;
        if too_wide || padded {
            return Err(MALFORMED);
        }
        bits |= group << shift;
        if *byte < 0x80 {
            return Ok(bits);
        }
    }
    Err(MALFORMED)
}
