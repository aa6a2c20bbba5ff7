//! The identity of a claim, by which its repetition gets the same tasks.

use super::digest::Digest;
use super::queue::QueueName;

/// The identity of a claim. The id that a client chooses counts for one worker and one set of queues.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClaimId {
    digest: Digest,
    /// `None` if completed leases identify the claim: their repetition cannot be another claim.
    queues: Option<Digest>,
}

impl ClaimId {
    /// Returns the identity of the claim that `worker` sends with this id for `queues`, in any order.
    pub fn of_client(worker: &str, id: &str, queues: &[QueueName]) -> Self {
        let mut names: Vec<&[u8]> = queues.iter().map(|queue| queue.as_str().as_bytes()).collect();
        names.sort_unstable();
        let digest = Digest::of(&[b"claim", b"id", worker.as_bytes(), id.as_bytes()]);
        ClaimId { digest, queues: Some(Digest::of(&names)) }
    }

    /// Returns the identity of the claim that follows the completion of leases. `kind` separates one lease from many.
    pub fn of_leases(kind: &str, leases: &[u8]) -> Self {
        ClaimId { digest: Digest::of(&[b"claim", kind.as_bytes(), leases]), queues: None }
    }

    /// Returns the digest without the queues, which names the claim's key.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the identity as stored with each lease: the digest, then that of the queues, if any.
    pub fn to_bytes(&self) -> Vec<u8> {
        let queues: &[u8] = self.queues.as_ref().map_or(&[], |queues| queues.as_bytes());
        [self.digest.as_bytes(), queues].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_id_depends_on_worker_and_set_of_queues() {
        let queues = |names: &[&str]| names.iter().map(|name| QueueName::parse(name).unwrap()).collect::<Vec<_>>();
        let id = ClaimId::of_client("w", "1", &queues(&["a", "b"]));
        assert_eq!(id, ClaimId::of_client("w", "1", &queues(&["b", "a"])));
        let other = ClaimId::of_client("w", "1", &queues(&["a"]));
        assert!(other != id && other.digest() == id.digest());
        assert_ne!(ClaimId::of_client("v", "1", &queues(&["a"])).digest(), id.digest());
        assert_eq!((id.to_bytes().len(), ClaimId::of_leases("lease", b"x").to_bytes().len()), (32, 16));
    }
}
