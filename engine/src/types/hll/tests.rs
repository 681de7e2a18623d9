//! Byte equality with what redis-server 7.0.15 makes, models, corruption.

use super::*;

/// What redis-server 7.0.15 made of a sequence of `PFADD k n`, one element a call.
struct Golden {
    /// Of the sequence: splitmix64 modulo `space`.
    seed: u64,
    adds: usize,
    space: u64,
    sparse_bytes_max: usize,
    /// What PFCOUNT said afterwards.
    count: u64,
    /// Length of the string after PFCOUNT.
    bytes: usize,
    /// Its FNV-1a hash.
    fnv: u64,
}

const GOLDENS: &[Golden] = &[
    Golden {
        seed: 1,
        adds: 10,
        space: 100,
        sparse_bytes_max: 3000,
        count: 10,
        bytes: 48,
        fnv: 0xeaaf_9db1_184c_d403,
    },
    Golden {
        seed: 2,
        adds: 200,
        space: 1000,
        sparse_bytes_max: 3000,
        count: 178,
        bytes: 471,
        fnv: 0x0279_6d28_7f7e_b1b8,
    },
    Golden {
        seed: 3,
        adds: 1500,
        space: 100_000,
        sparse_bytes_max: 3000,
        count: 1501,
        bytes: 2731,
        fnv: 0x25f3_57cf_9c22_1aab,
    },
    Golden {
        seed: 4,
        adds: 1500,
        space: 1600,
        sparse_bytes_max: 16_000,
        count: 973,
        bytes: 1875,
        fnv: 0x280d_8b63_34d4_a9b4,
    },
    Golden {
        seed: 5,
        adds: 400,
        space: 1_000_000,
        sparse_bytes_max: 100,
        count: 404,
        bytes: 12_304,
        fnv: 0x74d9_e4e8_5239_ce1e,
    },
    Golden {
        seed: 6,
        adds: 9000,
        space: 1_000_000,
        sparse_bytes_max: 20_000,
        count: 9040,
        bytes: 10_064,
        fnv: 0x0e23_8445_d3e8_64c8,
    },
    Golden {
        seed: 7,
        adds: 40_000,
        space: 10_000_000,
        sparse_bytes_max: 3000,
        count: 40_323,
        bytes: 12_304,
        fnv: 0x5c96_ffd6_2ee5_383d,
    },
];

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn of_elements(elements: impl Iterator<Item = u64>, sparse_bytes_max: usize) -> Vec<u8> {
    let mut bytes = empty();
    for n in elements {
        add(&mut bytes, Mark::of(n.to_string().as_bytes()), sparse_bytes_max)
            .expect("a string made here is whole");
    }
    bytes
}

#[test]
fn strings_are_those_of_redis_to_the_byte() {
    for golden in GOLDENS {
        let mut state = golden.seed;
        let elements = (0..golden.adds).map(|_| splitmix(&mut state) % golden.space);
        let mut bytes = of_elements(elements, golden.sparse_bytes_max);
        assert_eq!(count(&bytes), Ok(golden.count), "seed {}", golden.seed);
        cache_count(&mut bytes, golden.count);
        assert_eq!((bytes.len(), fnv(&bytes)), (golden.bytes, golden.fnv), "seed {}", golden.seed);
    }
}

#[test]
fn three_elements_leave_these_runs() {
    let mut bytes = empty();
    for element in [b"a", b"b", b"c"] {
        assert_eq!(add(&mut bytes, Mark::of(element), 3000), Ok(true));
        assert_eq!(add(&mut bytes, Mark::of(element), 3000), Ok(false));
    }
    forget_count(&mut bytes);
    assert_eq!(bytes, b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80`\xf3\x80P\xb1\x84K\xfb\x80BZ");
    let runs = "Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603";
    assert_eq!(describe_runs(&bytes).as_deref(), Ok(runs));
    assert_eq!((cached_count(&bytes), count(&bytes)), (None, Ok(3)));
}

#[test]
fn string_becomes_dense_at_its_limit_and_keeps_its_registers() {
    let sparse = of_elements(0..1000, usize::MAX);
    let dense = of_elements(0..1000, 200);
    assert_eq!(encoding(&sparse), Some(Encoding::Sparse));
    assert_eq!(encoding(&dense), Some(Encoding::Dense));
    let mut converted = sparse.clone();
    assert_eq!(make_dense(&mut converted), Ok(true));
    assert_eq!(make_dense(&mut converted), Ok(false));
    assert_eq!(converted, dense);
    assert_eq!(count(&sparse), count(&dense));
}

#[test]
fn union_written_out_is_the_same_in_both_encodings() {
    let (a, b) = (of_elements(0..300, 3000), of_elements(200..700, 3000));
    let mut union = Registers::default();
    union.merge(&a).expect("it is whole");
    union.merge(&b).expect("it is whole");
    let mut sparse = a.clone();
    union.write_to(&mut sparse, 3000).expect("it is whole");
    let mut dense = a;
    union.write_to(&mut dense, 30).expect("it is whole");
    assert_eq!(encoding(&sparse), Some(Encoding::Sparse));
    assert_eq!(encoding(&dense), Some(Encoding::Dense));
    for bytes in [sparse, dense] {
        let mut again = Registers::default();
        again.merge(&bytes).expect("it is whole");
        assert_eq!(again, union);
        assert_eq!(count(&bytes), Ok(union.count()));
    }
}

#[test]
fn registers_that_are_all_full_count_as_in_redis() {
    let mut bytes = empty();
    make_dense(&mut bytes).expect("it is whole");
    bytes[HEADER_BYTES..].fill(0xff);
    assert_eq!(count(&bytes), Ok(1 << 63));
    dense::pack(&[51; REGISTER_COUNT], &mut bytes[HEADER_BYTES..]);
    assert_eq!(count(&bytes), Ok(1 << 63));
}

#[test]
fn broken_strings_are_refused_and_never_panic() {
    let whole = of_elements(0..200, 3000);
    let mut state = 1;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=splitmix(&mut state) % 3 {
            let at = splitmix(&mut state) as usize % bytes.len();
            match splitmix(&mut state) % 3 {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.push(splitmix(&mut state) as u8),
                _ => bytes[at] = splitmix(&mut state) as u8,
            }
        }
        let counted = count(&bytes);
        let mut union = Registers::default();
        let merged = union.merge(&bytes);
        let _ = describe_runs(&bytes);
        let _ = make_dense(&mut bytes.clone());
        let _ = union.write_to(&mut bytes.clone(), 3000);
        assert!(merged.is_ok() || counted.is_err());
        let before = bytes.clone();
        let n = splitmix(&mut state);
        if add(&mut bytes, Mark::of(&n.to_le_bytes()), 3000).is_err() {
            assert_eq!(bytes, before);
        }
    }
}
