//! The bytes of stored records: Rust and Redis' `struct` agree on these vectors.

use deadpool_redis::redis::cmd;
use slotwheel::store::layout::{Kind, RECORDS, Record, Value};

use crate::support::redis::OwnRedis;

/// A record: its kind, its values in the order of its fields, its tail, and all in hexadecimal.
type Vector = (&'static str, &'static [Value<'static>], &'static [u8], &'static str);

const RESERVED: Value<'_> = Value::Bytes(b"0123456789abcdef");

const TIME: Value<'_> = uint(1_764_382_397_000);

const fn uint(number: u64) -> Value<'static> {
    Value::Uint(number)
}

/// At least one for each record, with the least and the greatest value of each field.
const VECTORS: &[Vector] = &[
    (
        "queue",
        &[
            uint(1),
            uint(2),
            uint(3),
            uint(4),
            uint(5),
            uint(6),
            uint(7),
            uint(0x0123_4567_89ab),
            uint((1 << 48) - 1),
            uint(10),
            uint(253_402_300_799_999),
            uint(1),
            uint((1 << 48) - 2),
            uint((1 << 48) - 3),
            uint(1),
            uint(2),
            uint(3),
            uint(32),
            Value::Bytes(b"012"),
        ],
        b"",
        "01 000000000001 000000000002 000000000003 000000000004 000000000005 000000000006 000000000007 0123456789ab \
         ffffffffffff 0a e677d21fdbff 01 fffffffffffe fffffffffffd 000000000001 000000000002 \
         000000000003 20 303132",
    ),
    (
        "queue",
        &[
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            uint(0),
            Value::Bytes(&[0; 3]),
        ],
        b"a record of pieces",
        "01 000000000000 000000000000 000000000000 000000000000 000000000000 000000000000 000000000000 000000000000 \
         000000000000 00 000000000000 00 000000000000 000000000000 000000000000 000000000000 000000000000 00000000 \
         61207265636f7264206f6620706965636573",
    ),
    (
        "pass",
        &[uint(29), uint(16_383), Value::Bytes(b"01234567"), uint((1 << 48) - 1)],
        b"",
        "01 1d 3fff 3031323334353637 ffffffffffff",
    ),
    ("pieces", &[uint(9), uint(16_383), uint((1 << 40) - 1), uint(1)], b"", "01 09 3fff ffffffffff 000000000001"),
    (
        "shard",
        &[
            uint(9),
            uint(8),
            uint(7),
            uint(6),
            uint(5),
            uint(4),
            uint(3),
            uint(2),
            uint(1),
            uint((1 << 48) + 1),
            TIME,
            Value::Bytes(b"0123456789"),
        ],
        b"",
        "01 000000000009 000000000008 000000000007 000000000006 000000000005 000000000004 000000000003 000000000002 \
         000000000001 01000000000001 019acd62d248 30313233343536373839",
    ),
    (
        "placement",
        &[uint(9), uint(16_383), uint(1000), uint(999), uint(3), TIME, uint((1 << 48) - 1), uint((1 << 48) - 2)],
        b"q",
        "01 09 3fff 03e8 03e7 03 019acd62d248 ffffffffffff fffffffffffe 71",
    ),
    (
        "placement",
        &[uint(0); 8],
        b"01234567mail.eu",
        "01 00 0000 0000 0000 00 000000000000 000000000000 000000000000 3031323334353637 6d61696c2e6575",
    ),
    (
        "lease",
        &[
            RESERVED,
            TIME,
            uint(1_764_382_396_000),
            uint(1_764_382_396_500),
            uint(43_200_000),
            uint(4_294_967_295),
            uint(1),
        ],
        b"worker 1",
        "01 30313233343536373839616263646566 019acd62d248 019acd62ce60 019acd62d054 02932e00 ffffffff 01 776f726b65722031",
    ),
    (
        "lease",
        &[Value::Bytes(&[255; 16]), TIME, TIME, uint(0), uint(1000), uint(1), uint(0)],
        b"",
        "01 ffffffffffffffffffffffffffffffff 019acd62d248 019acd62d248 000000000000 000003e8 00000001 00",
    ),
    (
        "ending",
        &[uint(5), uint(6), uint(253_402_300_799_999), TIME, uint((1 << 48) - 1)],
        b"",
        "01 05 06 e677d21fdbff 019acd62d248 ffffffffffff",
    ),
    (
        "ending",
        &[uint(0); 5],
        b"0123456789abcdef",
        "01 00 00 000000000000 000000000000 000000000000 30313233343536373839616263646566",
    ),
    ("call", &[uint(258), TIME, TIME, uint(0)], b"\x91\xa0", "01 00000000000102 019acd62d248 019acd62d248 0000 91a0"),
];

fn record(name: &str) -> &'static Record {
    RECORDS.iter().find(|record| record.name == name).expect("a record")
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("a byte");
    digits.chunks(2).map(byte).collect()
}

#[test]
fn rust_writes_and_reads_the_vectors_of_every_record() {
    for record in RECORDS {
        assert!(VECTORS.iter().any(|(name, ..)| *name == record.name), "{} has no vector", record.name);
    }
    for (name, values, tail, hex) in VECTORS {
        let record = record(name);
        assert_eq!(record.encode(values, tail), bytes(hex), "{name}");
        let encoded = bytes(hex);
        let decoded = record.decode(&encoded).expect("a record");
        assert_eq!(decoded.tail(), *tail);
        assert_eq!(values.len(), record.fields.len(), "{name}");
        for (place, (field, value)) in record.fields.iter().zip(*values).enumerate() {
            let found = match field.kind {
                Kind::Uint => Value::Uint(decoded.uint(place)),
                Kind::Bytes => Value::Bytes(decoded.bytes(place)),
            };
            assert_eq!(found, *value, "{name}, {}", field.name);
        }
    }
}

/// Packs the values behind ARGV[3], each behind its kind; and what it has unpacked of ARGV[2].
const SCRIPT: &str = r"
local values = { struct.unpack(ARGV[1], ARGV[2]) }
local given = { values[1] }
for i = 3, #ARGV, 2 do given[#given + 1] = ARGV[i] == 'Uint' and tonumber(ARGV[i + 1]) or ARGV[i + 1] end
for i, value in ipairs(values) do if type(value) == 'number' then values[i] = string.format('%.0f', value) end end
values[#values + 1] = struct.pack(ARGV[1], unpack(given))
return values";

#[tokio::test]
async fn scripts_write_and_read_the_vectors_of_every_record() {
    let mut redis = OwnRedis::start().await;
    for (name, values, tail, hex) in VECTORS {
        let record = record(name);
        let mut command = cmd("EVAL");
        command.arg(SCRIPT).arg(0).arg(record.format()).arg(bytes(hex));
        let shown = values.iter().map(|value| match value {
            Value::Uint(number) => ("Uint", number.to_string().into_bytes()),
            Value::Bytes(bytes) => ("Bytes", bytes.to_vec()),
        });
        let mut wanted = vec![record.version.to_string().into_bytes()];
        for (kind, value) in shown {
            command.arg(kind).arg(&value);
            wanted.push(value);
        }
        // `struct.unpack` also returns the place behind what it has read, which is that of the tail.
        wanted.push((record.bytes() + 1).to_string().into_bytes());
        let fixed = bytes(hex);
        wanted.push(fixed[..fixed.len() - tail.len()].to_vec());
        assert_eq!(redis.ask::<Vec<Vec<u8>>>(&command).await, wanted, "{name}");
    }
    redis.stop().await;
}
