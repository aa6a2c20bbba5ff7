//! Claim: ready tasks go to those who wait for them.

use deadpool_redis::redis::Value;

use crate::domain::digest::Digest;
use crate::domain::limits;
use crate::domain::queue::QueueName;
use crate::domain::task::Claimed;
use crate::domain::time::Millis;
use crate::domain::token::Token;
use crate::store::error::{Error, Result};
use crate::store::record;
use crate::store::reply::{Items, items};
use crate::store::script::{Script, script};
use crate::store::shard::{Call, Caller, Shard};

pub(super) static SCRIPT: Script =
    script!("claim", flags = " flags=allow-oom", ["call", "stage", "news", "sums", "measure", "waited"]);

/// Somebody who waits for tasks.
#[derive(Clone, Debug)]
pub struct Want {
    /// How many at most.
    pub max: usize,
    /// For how long, ms.
    pub lease_ms: i64,
    /// Under which name.
    pub worker: String,
    /// Of the claim id.
    pub claim: Option<Digest>,
    /// Places in the call's list of queues, in order of preference.
    pub queues: Vec<usize>,
}

/// What a call of claim brought.
#[derive(Debug, Default)]
pub struct Handed {
    /// The place of the waiter in the call, and its task.
    pub tasks: Vec<(usize, Claimed)>,
    /// A limit of the call ended it: another may bring more.
    pub more: bool,
    /// Tasks were passed over because they had expired.
    pub expired: bool,
    /// Places of the queues that were looked at, with the priority of what can be claimed next in this shard.
    pub fronts: Vec<(usize, Option<u8>)>,
}

/// A call of claim, which may be sent until it is answered: it hands out the same leases each time.
pub struct Claim<'a> {
    call: Call<'a>,
    queues: &'a [QueueName],
    tokens: Vec<Token>,
}

impl<'a> Claim<'a> {
    /// The call that hands out what `queues` have to `wants`, in their order; at most 100 tasks and 2 MiB of documents.
    pub fn new(shard: &'a Shard, caller: &mut Caller, queues: &'a [QueueName], wants: &[Want]) -> Self {
        let wanted: usize = wants.iter().map(|want| want.max).sum();
        let tokens: Vec<Token> = (0..wanted.min(limits::CALL_CLAIMS)).map(|_| Token::new(rand::random())).collect();
        let mut call = shard.call(&SCRIPT, caller);
        call.count(limits::CALL_BYTES).count(queues.len());
        for queue in queues {
            call.arg(queue.as_str());
        }
        call.count(tokens.len());
        for token in &tokens {
            call.arg(token.as_bytes());
        }
        call.count(wants.len());
        for want in wants {
            call.count(want.max)
                .int(want.lease_ms)
                .arg(&want.worker)
                .arg(want.claim.as_ref().map_or(&[][..], |digest| digest.as_bytes()))
                .count(want.queues.len());
            for queue in &want.queues {
                call.count(queue + 1);
            }
        }
        Claim { call, queues, tokens }
    }

    /// Sends it.
    ///
    /// # Errors
    /// After [`Unavailable`](Error::Unavailable) it may have run: what it handed out is known when it is sent again.
    pub async fn send(&self) -> Result<Handed> {
        let handed = answer(self.call.send().await?, self.queues, &self.tokens)?;
        self.call.transitions().claimed.add(handed.tasks.len() as u64);
        Ok(handed)
    }
}

/// Reads the answer to a call that sent these queues and tokens.
pub(in crate::store) fn answer(reply: Value, queues: &[QueueName], tokens: &[Token]) -> Result<Handed> {
    let mut reply = items(reply)?;
    let mut handed = Handed { more: reply.int()? == 1, expired: reply.int()? == 1, ..Handed::default() };
    for given in reply.items()? {
        match task(items(given)?, queues, tokens) {
            Ok(task) => handed.tasks.push(task),
            // Its lease will run out; the others are not held up by it.
            Err(error) => tracing::error!(%error, "a claimed task cannot be read"),
        }
    }
    for front in reply.items()? {
        let mut front = items(front)?;
        handed.fronts.push((place(front.int()?)?, u8::try_from(front.int()?).ok()));
    }
    Ok(handed)
}

fn task(mut given: Items, queues: &[QueueName], tokens: &[Token]) -> Result<(usize, Claimed)> {
    let waiter = place(given.int()?)?;
    let token = tokens.get(place(given.int()?)?).copied();
    let token = token.ok_or_else(|| Error::Unexpected("claim names a token that was not sent".into()))?;
    let id = given.id()?;
    let until = Millis(given.int()?);
    let queue = queues.get(place(given.int()?)?).cloned();
    let queue = queue.ok_or_else(|| Error::Unexpected("claim names a queue that was not sent".into()))?;
    Ok((waiter, record::handed_out(given, id, queue, until, token)?))
}

/// Lua's places start at 1.
fn place(number: i64) -> Result<usize> {
    usize::try_from(number.saturating_sub(1)).map_err(|_| Error::Unexpected("a place before the first".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_start_at_1() {
        assert_eq!(place(1).ok(), Some(0));
        assert!(place(0).is_err() && place(i64::MIN).is_err());
    }
}
