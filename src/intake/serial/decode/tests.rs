#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::intake::serial::frame::ByteOrder;

fn json_of(decoder: &Decoder, frame: &[u8]) -> Result<Value, DecodeError> {
    let mut out = b"left over".to_vec();
    decoder.decode(frame)?.write(&mut out);
    Ok(serde_json::from_slice(&out).unwrap())
}

fn column(name: &str, kind: Kind) -> Column {
    Column { name: name.to_owned(), kind, unit: None, scaling: Scaling::default() }
}

fn weighing() -> Decoder {
    let mut weight = column("weight", Kind::Float);
    weight.unit = Some("kg".to_owned());
    let columns = vec![column("state", Kind::Text), weight, column("", Kind::Skip), column("count", Kind::Int)];
    Decoder::Csv { separator: b',', encoding: Encoding::Utf8, columns }
}

#[test]
fn raw_is_byte_for_byte_and_text_is_trimmed() {
    let mut out = Vec::new();
    Decoder::Raw.decode(&[0xff, 0, 1]).unwrap().write(&mut out);
    assert_eq!(out, [0xff, 0, 1]);
    assert_eq!(json_of(&Decoder::Text(Encoding::Utf8), b" 21.5 \xc2\xb0C\r").unwrap(), json!({"text": "21.5 \u{b0}C"}));
    assert_eq!(json_of(&Decoder::Text(Encoding::Latin1), b"21.5 \xb0C").unwrap(), json!({"text": "21.5 \u{b0}C"}));
    assert_eq!(json_of(&Decoder::Text(Encoding::Utf8), b"\xb0C"), Err(DecodeError::NotUtf8));
}

#[test]
fn columns_have_names_types_and_units() {
    let read = json_of(&weighing(), b"ST, +012.50,kg,7").unwrap();
    assert_eq!(read, json!({"state": "ST", "weight": 12.5, "count": 7, "units": {"weight": "kg"}}));
    assert_eq!(json_of(&weighing(), b"\"a,\"\"b\"\"\",,x,").unwrap()["state"], "a,\"b\"");
    assert_eq!(json_of(&weighing(), b"ST,,x,").unwrap()["weight"], Value::Null);
    assert_eq!(json_of(&weighing(), b"ST,1"), Err(DecodeError::Columns { found: 2, wanted: 4 }));
    let wrong = json_of(&weighing(), b"ST,abc,kg,7").unwrap_err();
    assert_eq!(wrong.to_string(), "decode the field weight: it is no number");
    assert!(json_of(&weighing(), b"ST,inf,kg,7").is_err() && json_of(&weighing(), b"ST,1,kg,1.5").is_err());
}

#[test]
fn named_groups_become_fields() {
    let mut scaled = column("t", Kind::Int);
    scaled.scaling = Scaling { scale: 0.1, offset: -40.0 };
    let pattern = Regex::new(r"^T=(?<t>\d+);(?<door>open|shut)?(;(?<lamp>on|off))?$").unwrap();
    let columns = vec![scaled, column("lamp", Kind::Bool)];
    let decoder = Decoder::Regex { pattern, encoding: Encoding::Utf8, columns };
    assert_eq!(json_of(&decoder, b"T=615;open;on").unwrap(), json!({"t": 21.5, "door": "open", "lamp": true}));
    assert_eq!(json_of(&decoder, b"T=0;").unwrap(), json!({"t": -40.0, "door": null, "lamp": null}));
    assert_eq!(json_of(&decoder, b"T=;"), Err(DecodeError::NoMatch));
}

#[test]
fn sentences_of_a_receiver_become_fields() {
    let gga = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47";
    let read = json_of(&Decoder::Nmea, gga).unwrap();
    let wanted = json!({"talker": "GP", "sentence": "GGA", "time": "12:35:19", "latitude": 48.1173,
        "longitude": 11.5166666667, "quality": 1, "satellites": 8, "hdop": 0.9, "altitude_m": 545.4});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&read[name], value, "{name}");
    }
    let rmc = b"$GNRMC,081836.75,A,3751.65,S,14507.36,E,000.0,360.0,130998,011.3,E*62";
    let read = json_of(&Decoder::Nmea, rmc).unwrap();
    assert_eq!(read["latitude"], -37.8608333333);
    assert_eq!((&read["date"], &read["time"]), (&json!("1998-09-13"), &json!("08:18:36.75")));
    let own = json_of(&Decoder::Nmea, b"$PGRME,15.0,M*1C").unwrap();
    assert_eq!(own, json!({"talker": "P", "sentence": "GRME", "fields": ["15.0", "M"]}));
    assert_eq!(json_of(&Decoder::Nmea, b"$GPGGA,,99x9.0,N").unwrap()["latitude"], Value::Null);
    for none in [&b"GPGGA,1"[..], b"$", b"$\xff\xff", b"$GP"] {
        assert_eq!(json_of(&Decoder::Nmea, none), Err(DecodeError::NotNmea));
    }
}

fn packed(name: &str, at: usize, kind: packed::Kind, order: ByteOrder) -> Packed {
    Packed { name: name.to_owned(), at, kind, order, unit: None, scaling: Scaling::default() }
}

#[test]
fn packed_numbers_are_read_at_their_places() {
    use packed::Kind;
    let frame = [0xff, 0xfe, 0x12, 0x34, 0x3d, 0xcc, 0xcc, 0xcd, b'o', b'k', 0, b'x', 0b1010_0101];
    let mut scaled = packed("scaled", 2, Kind::Unsigned(2), ByteOrder::Big);
    scaled.scaling.scale = 0.1;
    scaled.unit = Some("V".to_owned());
    let decoder = Decoder::Packed(vec![
        packed("signed", 0, Kind::Signed(2), ByteOrder::Big),
        packed("little", 2, Kind::Unsigned(2), ByteOrder::Little),
        scaled,
        packed("single", 4, Kind::F32, ByteOrder::Big),
        packed("text", 8, Kind::Text(4), ByteOrder::Big),
        packed("bit", 12, Kind::Bits { bytes: 1, from: 2, count: 1 }, ByteOrder::Big),
        packed("bits", 12, Kind::Bits { bytes: 1, from: 4, count: 4 }, ByteOrder::Big),
    ]);
    let wanted = json!({"signed": -2, "little": 0x3412, "scaled": 466.0, "single": 0.1, "text": "ok", "bit": true,
        "bits": 10, "units": {"scaled": "V"}});
    assert_eq!(json_of(&decoder, &frame).unwrap(), wanted);
    assert_eq!(json_of(&decoder, &frame[..12]), Err(DecodeError::TooShort { field: "bit".to_owned() }));
}

#[test]
fn what_json_cannot_say_is_null() {
    let nan = packed("x", 0, packed::Kind::F32, ByteOrder::Big);
    let infinite = f32::INFINITY.to_be_bytes();
    assert_eq!(json_of(&Decoder::Packed(vec![nan.clone()]), &f32::NAN.to_be_bytes()).unwrap(), json!({"x": null}));
    assert_eq!(json_of(&Decoder::Packed(vec![nan]), &infinite).unwrap(), json!({"x": null}));
    let whole = packed("x", 0, packed::Kind::Unsigned(8), ByteOrder::Big);
    assert_eq!(json_of(&Decoder::Packed(vec![whole]), &[0xff; 8]).unwrap(), json!({"x": u64::MAX}));
}

proptest! {
    #[test]
    fn noise_never_panics(frame in prop::collection::vec(any::<u8>(), 0..100)) {
        for decoder in [weighing(), Decoder::Nmea, Decoder::Text(Encoding::Latin1)] {
            let _ = json_of(&decoder, &frame);
        }
        let mut sentence = b"$".to_vec();
        sentence.extend(frame.iter().map(|byte| byte % 0x60 + 0x20));
        let _ = json_of(&Decoder::Nmea, &sentence);
    }

    #[test]
    fn every_number_comes_back(number in any::<i32>(), order in prop::sample::select(vec![ByteOrder::Big, ByteOrder::Little])) {
        let bytes = if order == ByteOrder::Big { number.to_be_bytes() } else { number.to_le_bytes() };
        let field = packed("n", 0, packed::Kind::Signed(4), order);
        prop_assert_eq!(json_of(&Decoder::Packed(vec![field]), &bytes), Ok(json!({"n": number})));
    }
}
