//! Kubernetes' protobuf, for the built-in kinds: an envelope with `apiVersion` and `kind`, and the object. Pure.
//!
//! Written by hand because the generated types of the crates that have them know nothing of JSON. A message's field
//! names stand in `fields.txt`, their types are those of the kind's schema, so that one short walk decodes all kinds.
//! As in Go, fields of an unknown number are skipped.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{object::stamp, types::Shape};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Messages within messages; the deepest of the built-in kinds has less than twenty levels.
const DEPTH: usize = 64;

/// Field names by message.
static FIELDS: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let lines = include_str!("fields.txt").lines().filter(|line| !line.starts_with('#'));
    let words = lines.map(|line| line.split(' '));
    words.filter_map(|mut words| Some((words.next()?, words.collect()))).collect()
});

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the body does not begin as Kubernetes' protobuf does")]
    NoMagic,
    #[error("the protobuf message ends early or has a field of an unknown form")]
    Malformed,
    #[error("the protobuf message is nested too deeply")]
    TooDeep,
    #[error("the kind \"{0}\" is not known as protobuf")]
    UnknownKind(String),
}

/// One value on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Fault::Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Fault> {
        let count = usize::try_from(count).map_err(|_| Fault::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Fault::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let little = |bytes: &[u8]| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed(little(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed(little(self.take(4)?)),
            _ => return Err(Fault::Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// The last bytes of each of the first `N` fields, which is all that small messages need.
    fn strings<const N: usize>(mut self) -> Result<[&'a [u8]; N], Fault> {
        let mut found = [&[][..]; N];
        while let Some((number, value)) = self.next()? {
            let slot = usize::try_from(number).ok().and_then(|number| found.get_mut(number.checked_sub(1)?));
            if let (Some(slot), Wire::Bytes(bytes)) = (slot, value) {
                *slot = bytes;
            }
        }
        Ok(found)
    }

    fn numbers<const N: usize>(mut self) -> Result<[i64; N], Fault> {
        let mut found = [0; N];
        while let Some((number, value)) = self.next()? {
            let slot = usize::try_from(number).ok().and_then(|number| found.get_mut(number.checked_sub(1)?));
            if let (Some(slot), Wire::Varint(value)) = (slot, value) {
                *slot = value.cast_signed();
            }
        }
        Ok(found)
    }
}

fn text(bytes: &[u8]) -> Result<String, Fault> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Fault::Malformed)
}

/// Reads a body.
pub(super) fn decode(body: &[u8]) -> Result<Value, Fault> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Fault::NoMagic)?;
    let [kinds, raw] = Reader(envelope).strings()?;
    let [api_version, kind] = Reader(kinds).strings()?;
    let (api_version, kind) = (text(api_version)?, text(kind)?);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
    let shape = Shape::of(None, group, version, &kind);
    let name = if group == "events.k8s.io" { format!("events.{kind}") } else { kind.clone() };
    if !shape.is_known() || !FIELDS.contains_key(name.as_str()) {
        return Err(Fault::UnknownKind(kind));
    }
    let mut object = Map::new();
    message(raw, &name, shape, &mut object, 0)?;
    object.insert("apiVersion".into(), Value::from(api_version));
    object.insert("kind".into(), Value::from(kind));
    Ok(Value::Object(object))
}

fn message(
    bytes: &[u8],
    name: &str,
    shape: Shape<'_>,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Fault> {
    if depth > DEPTH {
        return Err(Fault::TooDeep);
    }
    let fields = FIELDS.get(name).ok_or_else(|| Fault::UnknownKind(name.to_owned()))?;
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.next()? {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let Some(field) = index.and_then(|index| fields.get(index)).filter(|field| **field != "-") else {
            continue;
        };
        if let Some(embedded) = field.strip_prefix('=') {
            let Wire::Bytes(bytes) = wire else { return Err(Fault::Malformed) };
            message(bytes, embedded, shape, into, depth + 1)?;
            continue;
        }
        let Some(shape) = shape.field(field) else { continue };
        if shape.type_name() == "array" {
            let value = value(&wire, shape.items(), depth)?;
            let list = into.entry(*field).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value);
            }
        } else if let Some(values) = shape.values() {
            let Wire::Bytes(bytes) = wire else { return Err(Fault::Malformed) };
            let (key, value) = entry(bytes, values, depth)?;
            let map = into.entry(*field).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        } else {
            // Go writes out what is empty; an empty text cannot be told from one left out, nor a time of zero.
            let value = value(&wire, shape, depth)?;
            if !value.is_null() && value.as_str() != Some("") {
                into.insert((*field).to_owned(), value);
            }
        }
    }
    Ok(())
}

/// One entry of a map.
fn entry(bytes: &[u8], shape: Shape<'_>, depth: usize) -> Result<(String, Value), Fault> {
    let [key, content] = Reader(bytes).strings()?;
    let value = if shape.type_name() == "array" {
        // Protobuf has no map of lists, so that they are wrapped.
        let mut list = Vec::new();
        let mut reader = Reader(content);
        while let Some((_, wire)) = reader.next()? {
            list.push(value(&wire, shape.items(), depth + 1)?);
        }
        Value::Array(list)
    } else {
        value(&Wire::Bytes(content), shape, depth)?
    };
    Ok((text(key)?, value))
}

fn value(wire: &Wire<'_>, shape: Shape<'_>, depth: usize) -> Result<Value, Fault> {
    let bytes = match (wire, shape.type_name()) {
        (Wire::Varint(value), "boolean") => return Ok(Value::from(*value != 0)),
        (Wire::Varint(value), _) => return Ok(Value::from(value.cast_signed())),
        (Wire::Fixed(bits), _) => return Ok(Value::from(f64::from_bits(*bits))),
        (Wire::Bytes(bytes), _) => *bytes,
    };
    match (shape.name(), shape.type_name()) {
        ("Time" | "MicroTime", _) => time(bytes, shape.name()),
        ("Quantity", _) => {
            let [quantity] = Reader(bytes).strings()?;
            text(quantity).map(Value::from)
        }
        ("IntOrString", _) => {
            let [kind, number] = Reader(bytes).numbers()?;
            let [_, _, string] = Reader(bytes).strings()?;
            if kind == 0 { Ok(Value::from(number)) } else { text(string).map(Value::from) }
        }
        ("FieldsV1" | "RawExtension", _) => {
            let [raw] = Reader(bytes).strings()?;
            serde_json::from_slice(raw).map_err(|_| Fault::Malformed)
        }
        (_, "string") if shape.format() == "byte" => Ok(Value::from(STANDARD.encode(bytes))),
        (_, "string") => text(bytes).map(Value::from),
        (name, "object") => {
            let mut map = Map::new();
            message(bytes, name, shape, &mut map, depth + 1)?;
            Ok(Value::Object(map))
        }
        _ => Err(Fault::Malformed),
    }
}

/// Seconds and nanoseconds; nothing at all is the time that Go calls zero.
fn time(bytes: &[u8], name: &str) -> Result<Value, Fault> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos] = Reader(bytes).numbers()?;
    let nanos = i32::try_from(nanos).map_err(|_| Fault::Malformed)?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| Fault::Malformed)?;
    Ok(Value::from(if name == "Time" {
        stamp(time)
    } else {
        time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }))
}
