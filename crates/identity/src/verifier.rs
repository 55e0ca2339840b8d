//! Verifies tokens, and remembers the good ones so that a signature is computed once and not for every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use portcullis_model::{Identity, UnixMs};

use crate::claims::Claimed;
use crate::token::Unverified;
use crate::{ClaimRules, HashKey, IdentityError, Key, KeySet, TokenFault};

/// Verified tokens that are remembered; beyond that the least recently used are verified again.
const MAX_REMEMBERED: u64 = 50_000;
/// Tokens with a bad signature that are remembered, so that sending one again and again costs one signature. Apart from
/// the good ones, which a flood of bad ones must not push out.
const MAX_REFUSED: u64 = 10_000;
/// Keys that are tried on one token: a bad one must not cost as many signatures as there are keys. A token that names
/// its key needs one; the configuration may have no more without an ID that fit one algorithm.
pub const MAX_TRIES: usize = 4;

/// Which tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Those of the configuration; those of a key set come on top.
    pub keys: Vec<Key>,
    pub claims: ClaimRules,
}

/// How many tokens came to what. Relaxed counters; they start at zero with the process.
#[derive(Debug, Default)]
pub struct TokenStats {
    verified: AtomicU64,
    remembered: AtomicU64,
    signatures: AtomicU64,
    refused: [AtomicU64; TokenFault::ALL.len()],
}

impl TokenStats {
    /// Tokens that were good, also those that were remembered.
    pub fn accepted(&self) -> u64 {
        self.verified.load(Ordering::Relaxed) + self.remembered.load(Ordering::Relaxed)
    }

    /// Of the good ones, those whose signature did not have to be computed.
    pub fn remembered(&self) -> u64 {
        self.remembered.load(Ordering::Relaxed)
    }

    /// Signatures that were computed, for good tokens and bad ones: at most [`MAX_TRIES`] for each.
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    pub fn refused(&self, fault: TokenFault) -> u64 {
        self.refused[fault as usize].load(Ordering::Relaxed)
    }

    /// Counts a token that was found bad before its signature was looked at.
    pub fn count(&self, fault: TokenFault) {
        self.refused[fault as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// One set of rules, with the keys that an issuer publishes at present.
pub struct Verifier {
    rules: TokenRules,
    published: ArcSwap<Published>,
    wants_keys: AtomicBool,
    hash: HashKey,
    remembered: Cache<u128, Remembered>,
    /// What was wrong with signatures, and the generation of the keys that they were computed with.
    refused: Cache<u128, (u64, TokenFault)>,
}

#[derive(Default)]
struct Published {
    /// Grows with each other set: what a key that has gone had verified is forgotten with it.
    generation: u64,
    keys: KeySet,
}

#[derive(Clone)]
struct Remembered {
    generation: u64,
    identity: Arc<Identity>,
    expires_at: UnixMs,
}

impl Verifier {
    /// # Errors
    /// The system has no randomness.
    pub fn new(rules: TokenRules) -> Result<Self, IdentityError> {
        Ok(Self {
            rules,
            published: ArcSwap::default(),
            wants_keys: AtomicBool::new(false),
            hash: HashKey::new(&HashKey::random()?),
            remembered: newest(MAX_REMEMBERED),
            refused: newest(MAX_REFUSED),
        })
    }

    pub fn rules(&self) -> &TokenRules {
        &self.rules
    }

    /// Puts the keys of an issuer in the place of those before.
    pub fn publish(&self, keys: KeySet) {
        let now = self.published.load();
        if now.keys != keys {
            self.published.store(Arc::new(Published { generation: now.generation + 1, keys }));
        }
    }

    /// The issuer's keys at present.
    pub fn published(&self) -> KeySet {
        self.published.load().keys.clone()
    }

    /// Whether a token named a key that nobody knows since this was asked last: the issuer may have a new one.
    pub fn take_wish_for_keys(&self) -> bool {
        self.wants_keys.load(Ordering::Relaxed) && self.wants_keys.swap(false, Ordering::Relaxed)
    }

    /// Who the bearer is. What comes of it is counted in `stats`.
    ///
    /// # Errors
    /// What is wrong with the token; the bearer is anonymous then.
    pub fn verify(&self, token: &[u8], now: UnixMs, stats: &TokenStats) -> Result<Arc<Identity>, TokenFault> {
        self.try_verify(token, now, stats).inspect_err(|fault| stats.count(*fault))
    }

    fn try_verify(&self, token: &[u8], now: UnixMs, stats: &TokenStats) -> Result<Arc<Identity>, TokenFault> {
        let published = self.published.load();
        let hash = self.hash.hash(token);
        if let Some(known) = self.remembered.get(&hash)
            && known.generation == published.generation
        {
            if now >= known.expires_at {
                self.remembered.invalidate(&hash);
                return Err(TokenFault::Expired);
            }
            stats.remembered.fetch_add(1, Ordering::Relaxed);
            return Ok(known.identity);
        }
        if let Some((generation, fault)) = self.refused.get(&hash)
            && generation == published.generation
        {
            return Err(fault);
        }
        let token = Unverified::parse(token)?;
        // What is cheap comes first: the claims count for nothing until the signature is found good.
        let Claimed { identity, expires_at } = self.rules.claims.read(&token.claims, now)?;
        self.check_signature(&token, &published.keys, stats).inspect_err(|fault| {
            if matches!(fault, TokenFault::Signature | TokenFault::TooManyKeys) {
                self.refused.insert(hash, (published.generation, *fault));
            }
        })?;
        stats.verified.fetch_add(1, Ordering::Relaxed);
        let (identity, generation) = (Arc::new(identity), published.generation);
        self.remembered.insert(hash, Remembered { generation, identity: Arc::clone(&identity), expires_at });
        Ok(identity)
    }

    fn check_signature(
        &self,
        token: &Unverified<'_>,
        published: &KeySet,
        stats: &TokenStats,
    ) -> Result<(), TokenFault> {
        let wanted = token.key_id.as_deref();
        // A key without an ID may be the one that the token names.
        let named = |key: &&Key| wanted.is_none() || key.id().is_none() || key.id() == wanted;
        let mut candidates = self.rules.keys.iter().chain(published.keys()).filter(named).peekable();
        if candidates.peek().is_none() {
            self.wants_keys.store(true, Ordering::Relaxed);
            return Err(TokenFault::UnknownKey);
        }
        let mut fitting = candidates.filter(|key| key.can(token.algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(TokenFault::Algorithm);
        }
        for key in fitting.by_ref().take(MAX_TRIES) {
            stats.signatures.fetch_add(1, Ordering::Relaxed);
            if key.verifies(token.algorithm, token.message, &token.signature) {
                return Ok(());
            }
        }
        Err(if fitting.next().is_some() { TokenFault::TooManyKeys } else { TokenFault::Signature })
    }
}

fn newest<T: Clone + Send + Sync + 'static>(most: u64) -> Cache<u128, T> {
    Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru()).build()
}
