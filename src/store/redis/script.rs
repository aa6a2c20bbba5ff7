//! Scripts: text joined at compile time, sent by digest, loaded where Redis does not know it.

use std::collections::HashMap;

use deadpool_redis::redis;

use crate::metrics::{Histogram, LATENCY_BUCKETS};

/// One transition's script.
#[derive(Debug)]
pub struct Script {
    /// Its file's name, without the ending.
    pub name: &'static str,
    /// Its text: `#!lua`, fragments, body.
    pub text: &'static str,
}

/// Joins `#!lua` with its flags, the fragments named, and the body that stands beside the caller.
macro_rules! script {
    ($name:literal, flags = $flags:literal, [$($fragment:literal),*]) => {
        $crate::store::redis::script::Script {
            name: $name,
            text: concat!(
                "#!lua", $flags, "\n",
                $(include_str!(concat!("lib/", $fragment, ".lua")),)*
                include_str!(concat!($name, ".lua")),
            ),
        }
    };
}
pub(in crate::store) use script;

/// A script as Redis knows it.
#[derive(Debug)]
pub(in crate::store) struct LoadedScript {
    pub(in crate::store) sha: String,
    pub(in crate::store) text: String,
    /// How long its calls took.
    pub(in crate::store) latency: Histogram,
}

/// All scripts, by name.
#[derive(Debug)]
pub(in crate::store) struct Scripts(HashMap<&'static str, LoadedScript>);

impl Scripts {
    /// `prelude` comes right after the first line of each; tests watch the scripts' work with it.
    pub(in crate::store) fn new(injected_lua: &str) -> Self {
        let loaded = crate::store::ops::ALL.iter().map(|script| {
            let text = match script.text.split_once('\n') {
                Some((first, rest)) if !injected_lua.is_empty() => format!("{first}\n{injected_lua}\n{rest}"),
                _ => script.text.to_owned(),
            };
            let sha = redis::Script::new(&text).get_hash().to_owned();
            (script.name, LoadedScript { sha, text, latency: Histogram::new(&LATENCY_BUCKETS) })
        });
        Scripts(loaded.collect())
    }

    pub(in crate::store) fn get(&self, script: &Script) -> Option<&LoadedScript> {
        self.0.get(script.name)
    }
}
