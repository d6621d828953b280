//! The header of a `.npy` file, read without trusting it.
//!
//! Layout (NumPy's `numpy.lib.format`): six magic bytes, major and minor version, the length of the text that follows
//! (two bytes in version 1, four in versions 2 and 3, little-endian), and that text: a Python dictionary literal with
//! the keys `descr`, `fortran_order` and `shape`, padded with spaces, ended by a newline. The data follow.

use swathe_os::text::quoted;

use crate::shape::MAX_AXES;

pub(super) const MAGIC: [u8; 6] = *b"\x93NUMPY";

/// Longest text that is read; NumPy itself stops at 10,000.
const LONGEST: usize = 1 << 20;

/// Most bytes that any header can have.
pub(super) const READ_AHEAD: usize = 12 + LONGEST;

/// Where the data start: at a multiple of this many bytes, as NumPy has it.
const DATA_ALIGN: usize = 64;

/// The header of a file that holds an array in C order; `descr` is a Python literal.
pub(super) fn bytes(descr: &str, shape: &[usize]) -> Vec<u8> {
    let axes: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let mut text = format!(
        "{{'descr': {descr}, 'fortran_order': False, 'shape': ({}), }}",
        axes.trim_end()
    );
    let mut pad_behind = |before: usize| {
        let room = (before + text.len() + 1).next_multiple_of(DATA_ALIGN) - before;
        text.push_str(&" ".repeat(room - 1 - text.len()));
        text.push('\n');
        room
    };
    let short = MAGIC.len() + 4;
    // Two bytes count what has a shape and few fields, four the rest.
    let (version, len) = match u16::try_from(pad_behind(short)) {
        Ok(len) => ([1, 0], len.to_le_bytes().to_vec()),
        Err(_) => {
            let len = pad_behind(short + 2) as u32;
            ([2, 0], len.to_le_bytes().to_vec())
        }
    };
    [MAGIC.as_slice(), &version, &len, text.as_bytes()].concat()
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: (u8, u8),
    pub(super) descr: String,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
    pub(super) data_offset: usize,
}

/// What was found instead of a header, as the middle of a sentence.
type Found = String;

/// Reads the header at the start of a file, given at least its first [`READ_AHEAD`] bytes or all of it.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, Found> {
    if !bytes.starts_with(&MAGIC) {
        let start = bytes.get(..6).unwrap_or(bytes).escape_ascii();
        return Err(format!("it starts with \"{start}\" instead of \"\\x93NUMPY\""));
    }
    let cut_off = || format!("it ends after {} bytes, inside its header", bytes.len());
    let &[major, minor] = bytes
        .get(6..8)
        .and_then(|version| version.first_chunk())
        .ok_or_else(cut_off)?;
    let (text_at, text_len) = match major {
        1 => {
            let len = bytes
                .get(8..10)
                .and_then(|len| len.first_chunk())
                .ok_or_else(cut_off)?;
            (10, usize::from(u16::from_le_bytes(*len)))
        }
        2 | 3 => {
            let len = bytes
                .get(8..12)
                .and_then(|len| len.first_chunk())
                .ok_or_else(cut_off)?;
            (
                12,
                usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX),
            )
        }
        _ => {
            return Err(format!(
                "its format version is {major}.{minor}; 1.0 to 3.0 are known"
            ));
        }
    };
    if text_len > LONGEST {
        return Err(format!(
            "its header claims {text_len} bytes; more than {LONGEST} are not believed"
        ));
    }
    let data_offset = text_at + text_len;
    let text = bytes.get(text_at..data_offset).ok_or_else(cut_off)?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is not text".to_owned())?;
    let dictionary = Parser {
        rest: text,
        whole: text,
    }
    .dictionary()?;
    Ok(Header {
        version: (major, minor),
        descr: dictionary.descr,
        fortran_order: dictionary.fortran_order,
        shape: dictionary.shape,
        data_offset,
    })
}

struct Dictionary {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Reads exactly the literals that can occur, from left to right; no recursion, no allocation beyond the result.
struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Parser<'a> {
    fn dictionary(mut self) -> Result<Dictionary, Found> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.eat("}") {
            let key = self.string()?;
            self.expect(":")?;
            let seen_before = match key {
                "descr" => descr.replace(self.descr()?.to_owned()).is_some(),
                "fortran_order" => fortran_order.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.shape()?).is_some(),
                _ => return Err(format!("its header has the unknown key {}", quoted(key))),
            };
            if seen_before {
                return Err(format!("its header has the key {key:?} twice"));
            }
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        if !self.rest.trim_ascii_start().is_empty() {
            return Err(self.unexpected("the end of the header"));
        }
        let lacks = |key: &str| format!("its header lacks the key {key:?}");
        Ok(Dictionary {
            descr: descr.ok_or_else(|| lacks("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| lacks("fortran_order"))?,
            shape: shape.ok_or_else(|| lacks("shape"))?,
        })
    }

    fn descr(&mut self) -> Result<&'a str, Found> {
        if self.rest.trim_ascii_start().starts_with('[') {
            return Err("its elements are records with fields".to_owned());
        }
        self.string()
    }

    fn boolean(&mut self) -> Result<bool, Found> {
        if self.eat("True") {
            Ok(true)
        } else if self.eat("False") {
            Ok(false)
        } else {
            Err(self.unexpected("True or False"))
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, Found> {
        let mut shape = Vec::new();
        self.expect("(")?;
        while !self.eat(")") {
            if shape.len() == MAX_AXES {
                return Err(format!("it has more than {MAX_AXES} axes"));
            }
            shape.push(self.length()?);
            if !self.eat(",") {
                // `(3)` is a number to Python, but some writers mean a tuple by it.
                self.expect(")")?;
                break;
            }
        }
        Ok(shape)
    }

    fn length(&mut self) -> Result<usize, Found> {
        self.rest = self.rest.trim_ascii_start();
        let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = self.rest.split_at(digits);
        if number.is_empty() {
            return Err(self.unexpected("the length of an axis"));
        }
        // Python 2 wrote long integers with an L.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        number
            .parse()
            .map_err(|_| format!("an axis has the length {}", quoted(number).replace('"', "")))
    }

    fn string(&mut self) -> Result<&'a str, Found> {
        self.rest = self.rest.trim_ascii_start();
        let quoted = self.rest.strip_prefix(['\'', '"']).and_then(|inside| {
            let quote = self.rest.chars().next()?;
            inside.split_once(quote)
        });
        match quoted {
            Some((string, rest)) if !string.contains('\\') => {
                self.rest = rest;
                Ok(string)
            }
            _ => Err(self.unexpected("a string in quotes")),
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_ascii_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), Found> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("{token:?}")))
        }
    }

    fn unexpected(&self, wanted: &str) -> Found {
        let rest = self.rest.trim_ascii_start();
        let at = self.whole.len() - rest.len();
        let next: String = rest.chars().take(12).collect();
        match next.is_empty() {
            true => format!("its header ends at character {at}, where {wanted} should be"),
            false => format!("its header has {next:?} at character {at}, where {wanted} should be"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of version 1 with this header text and no data.
    pub(in crate::npy) fn file_with(text: &str) -> Vec<u8> {
        let len = u16::try_from(text.len()).unwrap();
        [MAGIC.as_slice(), &[1, 0], &len.to_le_bytes(), text.as_bytes()].concat()
    }

    #[test]
    fn headers_that_are_written_are_read() {
        for shape in [&[][..], &[0], &[7], &[1 << 40], &[3, 4], &[usize::MAX; MAX_AXES]] {
            let bytes = bytes("'<f8'", shape);
            let header = parse(&bytes).unwrap();
            assert_eq!((&header.descr[..], &header.shape[..]), ("<f8", shape));
            assert_eq!(header.data_offset, bytes.len());
            assert!(bytes.len().is_multiple_of(DATA_ALIGN));
        }
        let text = String::from_utf8_lossy(&bytes("'<f8'", &[7])[10..]).into_owned();
        assert_eq!(
            text.trim_ascii_end(),
            "{'descr': '<f8', 'fortran_order': False, 'shape': (7,), }"
        );
    }

    #[test]
    fn a_header_of_very_many_fields_counts_with_four_bytes() {
        let descr = format!("[{}]", "('field', '<f8'), ".repeat(5000));
        let bytes = bytes(&descr, &[7]);
        assert_eq!(bytes[6..8], [2, 0]);
        let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        assert!(len == bytes.len() - 12 && bytes.len().is_multiple_of(DATA_ALIGN) && bytes.ends_with(b" \n"));
        assert_eq!(parse(&bytes).unwrap_err(), "its elements are records with fields");
    }

    #[test]
    fn headers_as_programs_write_them() {
        let table: [(&str, &str, bool, &[usize]); 6] = [
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }   \n",
                "<f8",
                false,
                &[3, 4],
            ),
            (
                "{'descr': '|u1', 'fortran_order': True, 'shape': (7,), }\n",
                "|u1",
                true,
                &[7],
            ),
            (
                "{'descr': '<i4', 'fortran_order': False, 'shape': (), }\n",
                "<i4",
                false,
                &[],
            ),
            (
                "{\"shape\":(2L,3L),\"fortran_order\":False,\"descr\":\"<f4\"}",
                "<f4",
                false,
                &[2, 3],
            ),
            (
                "{'descr':'<c16','fortran_order':False,'shape':(5)}",
                "<c16",
                false,
                &[5],
            ),
            (
                " { 'shape' : ( 0 , ) , 'descr' : '>i2' , 'fortran_order' : False } ",
                ">i2",
                false,
                &[0],
            ),
        ];
        for (text, descr, fortran_order, shape) in table {
            let header = parse(&file_with(text)).unwrap_or_else(|found| panic!("{text}: {found}"));
            assert_eq!(
                (header.descr.as_str(), header.fortran_order),
                (descr, fortran_order),
                "{text}"
            );
            assert_eq!(
                (header.shape.as_slice(), header.data_offset),
                (shape, 10 + text.len()),
                "{text}"
            );
        }
    }

    #[test]
    fn long_headers_use_four_bytes() {
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}";
        for major in [2, 3] {
            let len = (text.len() as u32).to_le_bytes();
            let file = [MAGIC.as_slice(), &[major, 0], &len, text.as_bytes()].concat();
            let header = parse(&file).unwrap();
            assert_eq!(
                (header.version, header.data_offset),
                ((major, 0), 12 + text.len())
            );
        }
    }

    fn assert_found(table: &[(&[u8], &str)]) {
        for (bytes, expected) in table {
            let found = parse(bytes).unwrap_err();
            assert!(
                found.contains(expected),
                "{}: {found}\nexpected: {expected}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn hostile_files_are_described() {
        assert_found(&[
            (b"", "it starts with \"\" instead of"),
            (
                b"PK\x03\x04zip",
                "it starts with \"PK\\x03\\x04zi\" instead of \"\\x93NUMPY\"",
            ),
            (b"\x93NUMPY", "it ends after 6 bytes, inside its header"),
            (
                b"\x93NUMPY\x01\x00\x10",
                "it ends after 9 bytes, inside its header",
            ),
            (
                b"\x93NUMPY\x02\x00\x10\x00",
                "it ends after 10 bytes, inside its header",
            ),
            (
                b"\x93NUMPY\x01\x00\xff\xff{}",
                "it ends after 12 bytes, inside its header",
            ),
            (
                b"\x93NUMPY\x09\x01\x00\x00",
                "its format version is 9.1; 1.0 to 3.0 are known",
            ),
            (
                b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
                "its header claims 4294967295 bytes",
            ),
            (b"\x93NUMPY\x01\x00\x02\x00\xff\xfe", "its header is not text"),
        ]);
    }

    #[test]
    fn hostile_header_texts_are_described() {
        let table = [
            ("", "its header ends at character 0, where \"{\" should be"),
            ("{}", "its header lacks the key \"descr\""),
            ("{'descr': '<f8'}", "its header lacks the key \"fortran_order\""),
            (
                "{'descr': '<f8', 'fortran_order': True}",
                "its header lacks the key \"shape\"",
            ),
            (
                "{'descr': '<f8', 'descr': '<f8'}",
                "its header has the key \"descr\" twice",
            ),
            ("{'evil': 1}", "its header has the unknown key \"evil\""),
            (
                "{'descr': [('a', '<f8')]}",
                "its elements are records with fields",
            ),
            (
                "{'descr': 8}",
                "its header has \"8}\" at character 10, where a string in quotes should be",
            ),
            ("{'descr: 8}", "where a string in quotes should be"),
            ("{'de\\x73cr': 1}", "where a string in quotes should be"),
            (
                "{'fortran_order': 1}",
                "has \"1}\" at character 18, where True or False should be",
            ),
            ("{'shape': 3}", "where \"(\" should be"),
            (
                "{'shape': (3",
                "its header ends at character 12, where \")\" should be",
            ),
            (
                "{'shape': (-3,)}",
                "has \"-3,)}\" at character 11, where the length of an axis should be",
            ),
            (
                "{'shape': (1.5,)}",
                "has \".5,)}\" at character 12, where \")\" should be",
            ),
            ("{'shape': (,)}", "where the length of an axis should be"),
            (
                "{'shape': (99999999999999999999,)}",
                "an axis has the length 99999999999999999999",
            ),
            ("{'shape': (1,1,1,1,1,1,1,1,1)}", "it has more than 8 axes"),
            ("{'descr' '<f8'}", "where \":\" should be"),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': ()} import os",
                "has \"import os\" at character 54, where the end of the header should be",
            ),
        ];
        for (text, expected) in table {
            assert_found(&[(&file_with(text), expected)]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&[MAGIC.as_slice(), &bytes].concat());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[{}()'\",: \\\\a-zTF0-9L\u{e9}]{0,60}") {
            let _ = parse(&file_with(&text));
        }

        #[test]
        fn every_shape_survives(shape in prop::collection::vec(any::<usize>(), 0..=8), fortran: bool) {
            let axes: String = shape.iter().map(|length| format!("{length}, ")).collect();
            let order = if fortran { "True" } else { "False" };
            let text = format!("{{'descr': '<f8', 'fortran_order': {order}, 'shape': ({axes}), }}\n");
            let header = parse(&file_with(&text)).unwrap();
            prop_assert_eq!((header.shape, header.fortran_order), (shape, fortran));
        }
    }
}
