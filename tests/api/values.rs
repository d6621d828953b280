//! Values that people have: as results, by value as elements, as parameters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroI64, NonZeroU8},
    ops::{Range, RangeInclusive},
    time::Duration,
};

use swathe::Result;
use swathe_tests::pool;

/// There and back, by every road.
macro_rules! crosses {
    ($pool:expr, $T:ty, $values:expr) => {
        let values: Vec<$T> = $values;
        let back = $pool.map(|value: $T| value, values.clone())?;
        assert!(
            (0..values.len()).all(|i| back.value(i).is_ok_and(|value| value == values[i])),
            "{}",
            stringify!($T)
        );
        let equal = |parameter: &$T, value: $T| *parameter == value;
        let same = $pool.map_with(&values[0], equal, values.clone())?;
        assert!(same.value(0)?, "{} as a parameter", stringify!($T));
        let nested = $pool.apply(
            |value: (u8, Option<$T>)| value.1,
            ((7_u8, Some(values[0].clone())),),
        )?;
        assert_eq!(nested.as_ref(), Some(&values[0]));
    };
}

fn pairs<M: FromIterator<(u32, String)>>(len: u32) -> M {
    (0..len).map(|i| (i * i, format!("value {i}"))).collect()
}

#[test]
fn collections_cross() -> Result<()> {
    let pool = pool(2);
    crosses!(pool, HashMap<u32, String>, vec![pairs(0), pairs(1), pairs(100)]);
    crosses!(pool, BTreeMap<u32, String>, vec![pairs(0), pairs(1), pairs(100)]);
    crosses!(
        pool,
        HashSet<String>,
        vec![HashSet::new(), ["a", "bc"].map(str::to_owned).into()]
    );
    crosses!(pool, BTreeSet<i64>, vec![BTreeSet::new(), (0..50).collect()]);
    crosses!(
        pool,
        VecDeque<f64>,
        vec![VecDeque::new(), (0..9).map(f64::from).collect()]
    );
    crosses!(pool, HashMap<String, Vec<BTreeMap<u8, f64>>>, vec![
        HashMap::from([("a".to_owned(), vec![BTreeMap::from([(1, 0.5)])])])
    ]);
    Ok(())
}

#[test]
fn times_ranges_and_addresses_cross() -> Result<()> {
    let pool = pool(2);
    crosses!(
        pool,
        Duration,
        vec![Duration::ZERO, Duration::MAX, Duration::from_nanos(1_234_567_891)]
    );
    crosses!(pool, Range<u64>, vec![0..0, 3..9]);
    crosses!(pool, RangeInclusive<i32>, vec![-3..=9, 0..=0]);
    let (v4, v6) = (Ipv4Addr::new(127, 0, 0, 1), Ipv6Addr::LOCALHOST);
    crosses!(pool, Ipv4Addr, vec![v4]);
    crosses!(pool, Ipv6Addr, vec![v6]);
    crosses!(pool, IpAddr, vec![IpAddr::V4(v4), IpAddr::V6(v6)]);
    crosses!(pool, SocketAddr, vec![SocketAddr::new(IpAddr::V6(v6), 80)]);
    Ok(())
}

#[test]
fn boxes_cross() -> Result<()> {
    let pool = pool(2);
    crosses!(pool, Box<String>, vec![Box::new("a".to_owned())]);
    crosses!(pool, Box<str>, vec!["a".into(), "".into()]);
    crosses!(pool, Box<[u16]>, vec![[1, 2].into(), [].into()]);
    Ok(())
}

#[test]
fn numbers_that_are_not_zero_cross() -> Result<()> {
    fn halve(x: NonZeroU8) -> NonZeroI64 {
        NonZeroI64::new(i64::from(x.get()) / 2 + 1).expect("at least 1")
    }
    let pool = pool(2);
    let values: Vec<NonZeroU8> = (1..=u8::MAX).filter_map(NonZeroU8::new).collect();
    let halves = pool.map(halve, values)?;
    assert_eq!(halves.value(254)?.get(), 128);
    Ok(())
}
