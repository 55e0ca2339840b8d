//! Tokens of every algorithm and of every known abuse, made by the test itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use portcullis_identity::{
    Algorithm, ClaimPath, ClaimRules, IdentityError, Key, KeySet, MAX_JWKS_BYTES, MAX_TRIES, TokenFault,
    TokenRules, TokenStats, Verifier,
};
use portcullis_model::UnixMs;
use portcullis_testkit::{RSA_1024_PUBLIC_PEM, RSA_PUBLIC_PEM, Signer, key_set};
use serde_json::{Value, json};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// In seconds.
const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> UnixMs {
    UnixMs(seconds * 1_000)
}

fn claim_rules() -> ClaimRules {
    ClaimRules {
        issuers: vec!["https://issuer.example/".to_owned()],
        audiences: vec!["site".to_owned()],
        leeway: Duration::from_secs(30),
        user: ClaimPath::new("sub"),
        roles: Some(ClaimPath::new("realm_access.roles")),
    }
}

fn verifier(keys: Vec<Key>) -> Verifier {
    with_rules(keys, claim_rules())
}

fn with_rules(keys: Vec<Key>, claims: ClaimRules) -> Verifier {
    Verifier::new(TokenRules { keys, claims }).unwrap()
}

fn claims() -> Value {
    json!({
        "sub": "alice", "iss": "https://issuer.example/", "aud": ["other", "site"], "exp": NOW + 600,
        "realm_access": { "roles": ["staff", "editor"] },
    })
}

fn changed(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn fault(verifier: &Verifier, token: &str) -> TokenFault {
    verifier.verify(token.as_bytes(), at(NOW), &TokenStats::default()).unwrap_err()
}

fn secret(algorithm: Algorithm) -> Key {
    Key::secret(algorithm, SECRET, None).unwrap()
}

#[test]
fn each_algorithm_is_verified_with_a_key_of_the_configuration() {
    let signed = |algorithm: &'static str| Signer::hs(algorithm, SECRET.as_bytes());
    let public = |algorithm, signer: &Signer| Key::from_pem(algorithm, &signer.public_pem(), None).unwrap();
    let (es, ed) = (Signer::es("ES256"), Signer::ed());
    let (p256, ed25519) = (public(Algorithm::Es256, &es), public(Algorithm::EdDsa, &ed));
    let rsa = |name, algorithm| (Signer::rs(name), public(algorithm, &Signer::rs(name)));
    for (signer, key) in [
        (signed("HS256"), secret(Algorithm::Hs256)),
        (signed("HS384"), secret(Algorithm::Hs384)),
        (signed("HS512"), secret(Algorithm::Hs512)),
        rsa("RS256", Algorithm::Rs256),
        rsa("RS384", Algorithm::Rs384),
        rsa("RS512", Algorithm::Rs512),
        (es, p256),
        (ed, ed25519),
    ] {
        let verifier = verifier(vec![key.clone()]);
        let identity =
            verifier.verify(signer.token(&claims()).as_bytes(), at(NOW), &TokenStats::default()).unwrap();
        assert_eq!(identity.user.as_deref(), Some("alice"), "{key:?}");
        assert!(identity.has_role("editor") && identity.has_role("staff") && !identity.has_role("admin"));
        assert_eq!(identity.session, None);
    }
}

#[test]
fn each_algorithm_is_verified_with_a_published_key_and_the_kid_chooses() {
    let signers = [
        ("r", Signer::rs("RS256")),
        ("e", Signer::es("ES256")),
        ("f", Signer::es("ES384")),
        ("d", Signer::ed()),
    ];
    let keys: Vec<Value> = signers.iter().map(|(kid, signer)| signer.jwk(kid)).collect();
    let verifier = verifier(Vec::new());
    verifier.publish(KeySet::parse(key_set(&keys).as_bytes()).unwrap());
    for (kid, signer) in &signers {
        let token = signer.token_of_key(kid, &claims());
        assert_eq!(
            verifier.verify(token.as_bytes(), at(NOW), &TokenStats::default()).unwrap().user.as_deref(),
            Some("alice")
        );
        let unnamed = signer.token(&claims());
        assert!(verifier.verify(unnamed.as_bytes(), at(NOW), &TokenStats::default()).is_ok(), "{kid}");
        let misnamed = signer.token_of_key(if *kid == "e" { "r" } else { "e" }, &claims());
        assert_eq!(fault(&verifier, &misnamed), TokenFault::Algorithm, "{kid}");
        assert!(!verifier.take_wish_for_keys());
        assert_eq!(fault(&verifier, &signer.token_of_key("new", &claims())), TokenFault::UnknownKey);
        assert!(verifier.take_wish_for_keys() && !verifier.take_wish_for_keys());
    }
    // The same curve, another key.
    assert_eq!(fault(&verifier, &Signer::es("ES256").token_of_key("e", &claims())), TokenFault::Signature);
}

#[test]
fn unsigned_tokens_prove_nothing_however_none_is_spelled() {
    let verifier = verifier(vec![secret(Algorithm::Hs256)]);
    let signer = Signer::hs("HS256", SECRET.as_bytes());
    for alg in ["none", "None", "NONE", "nOnE"] {
        let signed = signer.token_with(&json!({ "alg": alg }), &claims());
        let (message, _) = signed.rsplit_once('.').unwrap();
        assert_eq!(fault(&verifier, &signed), TokenFault::Unsigned);
        assert_eq!(fault(&verifier, &format!("{message}.")), TokenFault::Unsigned);
    }
    let good = signer.token(&claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    assert_eq!(fault(&verifier, &format!("{message}.")), TokenFault::Signature);
    assert_eq!(fault(&verifier, message), TokenFault::Malformed);
}

/// RFC 8725, 2.1: the public key of the issuer, which everybody has, as the secret of an HMAC.
#[test]
fn a_public_key_is_never_the_secret_of_an_hmac() {
    let key = Key::from_pem(Algorithm::Rs256, RSA_PUBLIC_PEM, None).unwrap();
    let verifier = verifier(vec![key]);
    for secret in [RSA_PUBLIC_PEM, RSA_PUBLIC_PEM.trim_end()] {
        let forged = Signer::hs("HS256", secret.as_bytes()).token(&claims());
        assert_eq!(fault(&verifier, &forged), TokenFault::Algorithm);
    }
    assert_eq!(
        Key::secret(Algorithm::Hs256, RSA_PUBLIC_PEM, None),
        Err(IdentityError::PemAsSecret { algorithm: Algorithm::Hs256 })
    );
    // And a secret that the issuer's document gives away is none.
    let leaked = json!({ "kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0" });
    assert_eq!(KeySet::parse(key_set(&[leaked]).as_bytes()), Err(IdentityError::NoUsableKey { got: 1 }));
}

#[test]
fn a_key_is_for_its_one_algorithm() {
    let verifier = verifier(vec![
        Key::from_pem(Algorithm::Rs512, RSA_PUBLIC_PEM, None).unwrap(),
        secret(Algorithm::Hs512),
    ]);
    assert_eq!(fault(&verifier, &Signer::rs("RS256").token(&claims())), TokenFault::Algorithm);
    let hs256 = Signer::hs("HS256", SECRET.as_bytes()).token(&claims());
    assert_eq!(fault(&verifier, &hs256), TokenFault::Algorithm);
    let odd = Signer::rs("RS512").token_with(&json!({ "alg": "PS512" }), &claims());
    assert_eq!(fault(&verifier, &odd), TokenFault::Algorithm);
}

#[test]
fn keys_that_cannot_be_trusted_are_refused_with_the_remedy() {
    let of = |algorithm, pem: &str| Key::from_pem(algorithm, pem, None).unwrap_err();
    assert_eq!(of(Algorithm::Rs256, RSA_1024_PUBLIC_PEM), IdentityError::RsaSize { bits: 1_024 });
    assert_eq!(
        of(Algorithm::Rs256, "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"),
        IdentityError::PrivateKey
    );
    assert_eq!(of(Algorithm::Rs256, "nothing"), IdentityError::NoPublicKey);
    assert!(matches!(of(Algorithm::Es256, RSA_PUBLIC_PEM), IdentityError::WrongKind { .. }));
    assert!(matches!(of(Algorithm::Hs256, RSA_PUBLIC_PEM), IdentityError::SecretExpected { .. }));
    for (algorithm, least) in [(Algorithm::Hs256, 32), (Algorithm::Hs384, 48), (Algorithm::Hs512, 64)] {
        let short = Key::secret(algorithm, &SECRET[..least - 1], None);
        assert_eq!(short, Err(IdentityError::ShortSecret { algorithm, got: least - 1, least }));
        assert!(Key::secret(algorithm, &SECRET[..least], None).is_ok());
    }
    assert!(!format!("{:?}", secret(Algorithm::Hs256)).contains(SECRET));
}

#[test]
fn what_a_token_claims_must_fit() {
    let verifier = verifier(vec![secret(Algorithm::Hs256)]);
    let signer = Signer::hs("HS256", SECRET.as_bytes());
    for (claims, wanted) in [
        (without("exp"), TokenFault::NoExpiry),
        (changed("exp", json!(NOW - 30)), TokenFault::Expired),
        (changed("exp", json!("soon")), TokenFault::Malformed),
        (changed("exp", json!(null)), TokenFault::Malformed),
        (changed("nbf", json!(NOW + 31)), TokenFault::NotYetValid),
        (changed("iss", json!("https://issuer.example")), TokenFault::Issuer),
        (changed("iss", json!(["https://issuer.example/"])), TokenFault::Issuer),
        (without("iss"), TokenFault::Issuer),
        (changed("aud", json!("other")), TokenFault::Audience),
        (changed("aud", json!([])), TokenFault::Audience),
        (without("aud"), TokenFault::Audience),
        (without("sub"), TokenFault::NoUser),
        (changed("sub", json!("  ")), TokenFault::NoUser),
        (changed("sub", json!("a\nb")), TokenFault::NoUser),
        (changed("sub", json!("x".repeat(129))), TokenFault::NoUser),
        (changed("sub", json!("session:00000000")), TokenFault::NoUser),
        (changed("sub", json!({ "name": "alice" })), TokenFault::NoUser),
        (json!(["alice"]), TokenFault::Malformed),
    ] {
        assert_eq!(fault(&verifier, &signer.token(&claims)), wanted, "{claims}");
    }
    for claims in [
        changed("exp", json!(NOW - 29)),
        changed("exp", json!(NOW as f64 + 0.5)),
        changed("nbf", json!(NOW + 30)),
        changed("aud", json!("site")),
        changed("sub", json!(42)),
        changed("iat", json!("whatever")),
    ] {
        assert!(
            verifier.verify(signer.token(&claims).as_bytes(), at(NOW), &TokenStats::default()).is_ok(),
            "{claims}"
        );
    }
}

#[test]
fn without_an_audience_of_our_own_a_token_for_somebody_is_not_for_us() {
    let rules = ClaimRules { audiences: Vec::new(), issuers: Vec::new(), ..claim_rules() };
    let verifier = with_rules(vec![secret(Algorithm::Hs256)], rules);
    let signer = Signer::hs("HS256", SECRET.as_bytes());
    assert_eq!(fault(&verifier, &signer.token(&claims())), TokenFault::Audience);
    assert!(
        verifier.verify(signer.token(&without("aud")).as_bytes(), at(NOW), &TokenStats::default()).is_ok()
    );
}

#[test]
fn claims_are_found_by_name_or_path() {
    for (path, claims) in [
        ("https://site.example/user", changed("https://site.example/user", json!("bob"))),
        ("a.b.c", changed("a", json!({ "b": { "c": "bob" } }))),
        ("a.b", changed("a.b", json!("bob"))),
    ] {
        let rules =
            ClaimRules { user: ClaimPath::new(path), roles: Some(ClaimPath::new("scope")), ..claim_rules() };
        let verifier = with_rules(vec![secret(Algorithm::Hs256)], rules);
        let mut claims = claims;
        claims["scope"] = json!("read write");
        let token = Signer::hs("HS256", SECRET.as_bytes()).token(&claims);
        let identity = verifier.verify(token.as_bytes(), at(NOW), &TokenStats::default()).unwrap();
        assert_eq!(identity.user.as_deref(), Some("bob"));
        assert_eq!(identity.roles, ["read".into(), "write".into()]);
    }
}

#[test]
fn roles_are_bounded() {
    let verifier = verifier(vec![secret(Algorithm::Hs256)]);
    let roles: Vec<String> = (0..1_000).map(|n| format!("r{n}")).collect();
    let claims = changed("realm_access", json!({ "roles": roles }));
    let token = Signer::hs("HS256", SECRET.as_bytes()).token(&claims);
    assert_eq!(verifier.verify(token.as_bytes(), at(NOW), &TokenStats::default()).unwrap().roles.len(), 64);
}

#[test]
fn garbage_is_malformed_and_nothing_worse() {
    let verifier = verifier(vec![secret(Algorithm::Hs256)]);
    let signer = Signer::hs("HS256", SECRET.as_bytes());
    let good = signer.token(&claims());
    for token in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "e30.e30.",
        "e30=.e30.AA",
        &good[1..],
        &format!("{good}."),
        &format!(" {good}"),
    ] {
        assert_eq!(fault(&verifier, token), TokenFault::Malformed, "{token}");
    }
    let critical = signer.token_with(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims());
    assert_eq!(fault(&verifier, &critical), TokenFault::Malformed);
    let deep =
        signer.token(&serde_json::from_str(&format!("{}{}", "[".repeat(120), "]".repeat(120))).unwrap());
    assert_eq!(fault(&verifier, &deep), TokenFault::Malformed);
    assert_eq!(fault(&verifier, &"a".repeat(17_000)), TokenFault::TooLong);
    for cut in 0..good.len() {
        assert!(verifier.verify(&good.as_bytes()[..cut], at(NOW), &TokenStats::default()).is_err());
    }
    // One bit of each part.
    for at_byte in [3, good.find('.').unwrap() + 9, good.rfind('.').unwrap() + 9] {
        let mut bad = good.clone().into_bytes();
        bad[at_byte] ^= 1;
        assert!(verifier.verify(&bad, at(NOW), &TokenStats::default()).is_err());
    }
}

#[test]
fn a_remembered_token_ends_when_it_expires_and_when_its_key_has_gone() {
    let (old, new) = (Signer::ed(), Signer::ed());
    let stats = TokenStats::default();
    let rules = TokenRules { keys: Vec::new(), claims: claim_rules() };
    let verifier = Verifier::new(rules).unwrap();
    let set = |signers: &[(&str, &Signer)]| {
        let keys: Vec<Value> = signers.iter().map(|(kid, signer)| signer.jwk(kid)).collect();
        KeySet::parse(key_set(&keys).as_bytes()).unwrap()
    };
    verifier.publish(set(&[("old", &old)]));
    let token = old.token_of_key("old", &claims());
    for _ in 0..5 {
        verifier.verify(token.as_bytes(), at(NOW), &stats).unwrap();
    }
    assert_eq!((stats.accepted(), stats.remembered()), (5, 4));
    assert_eq!(verifier.verify(token.as_bytes(), at(NOW + 630), &stats), Err(TokenFault::Expired));
    verifier.verify(token.as_bytes(), at(NOW), &stats).unwrap();
    verifier.publish(set(&[("new", &new)]));
    assert_eq!(verifier.verify(token.as_bytes(), at(NOW), &stats).unwrap_err(), TokenFault::UnknownKey);
    assert!(verifier.verify(new.token_of_key("new", &claims()).as_bytes(), at(NOW), &stats).is_ok());
    assert_eq!((stats.refused(TokenFault::Expired), stats.refused(TokenFault::UnknownKey)), (1, 1));
}

#[test]
fn a_bad_token_costs_one_signature_however_often_it_comes_until_the_keys_change() {
    let (old, new) = (Signer::ed(), Signer::ed());
    let stats = TokenStats::default();
    let verifier = verifier(Vec::new());
    let publish = |signer: &Signer| {
        verifier.publish(KeySet::parse(key_set(&[signer.jwk("a")]).as_bytes()).unwrap());
    };
    publish(&old);
    let token = new.token_of_key("a", &claims());
    let verify = |token: &str| verifier.verify(token.as_bytes(), at(NOW), &stats);
    for _ in 0..20 {
        assert_eq!(verify(&token).unwrap_err(), TokenFault::Signature);
    }
    assert_eq!((stats.signatures(), stats.refused(TokenFault::Signature)), (1, 20));
    publish(&new);
    assert!(verify(&token).is_ok(), "what is bad for one key may be good for the next");
    assert_eq!(stats.signatures(), 2);
    // Bad ones without end take nothing from those that are good.
    let forger = Signer::ed();
    for n in 0..200 {
        let mut forged = claims();
        forged["n"] = json!(n);
        assert!(verify(&forger.token_of_key("a", &forged)).is_err());
    }
    let before = stats.signatures();
    assert!(verify(&token).is_ok() && stats.signatures() == before);
}

#[test]
fn a_bad_token_costs_few_signatures_however_many_keys_there_are() {
    let keys: Vec<Value> = (0..100).map(|n| Signer::ed().jwk(&n.to_string())).collect();
    let last = Signer::ed();
    let verifier = verifier(Vec::new());
    verifier.publish(KeySet::parse(key_set(&keys).as_bytes()).unwrap());
    let stats = TokenStats::default();
    let unnamed = last.token(&claims());
    for _ in 0..3 {
        let bad = verifier.verify(unnamed.as_bytes(), at(NOW), &stats);
        assert_eq!(bad.unwrap_err(), TokenFault::TooManyKeys, "the right key may be among the rest");
    }
    assert_eq!((stats.signatures(), stats.refused(TokenFault::TooManyKeys)), (MAX_TRIES as u64, 3));
    let misnamed = last.token_of_key("7", &claims());
    assert_eq!(verifier.verify(misnamed.as_bytes(), at(NOW), &stats).unwrap_err(), TokenFault::Signature);
    assert_eq!(stats.signatures(), MAX_TRIES as u64 + 1);
    let mut too_many = keys;
    too_many.push(last.jwk("last"));
    assert_eq!(KeySet::parse(key_set(&too_many).as_bytes()), Err(IdentityError::TooManyKeys { got: 101 }));
}

#[test]
fn key_sets_are_bounded_and_what_is_not_for_signatures_is_left_out() {
    let huge = vec![b' '; MAX_JWKS_BYTES as usize + 1];
    assert!(matches!(KeySet::parse(&huge), Err(IdentityError::KeySetTooLarge { .. })));
    for bad in ["", "[]", "{}", "{\"keys\":{}}", "<html>"] {
        assert!(matches!(KeySet::parse(bad.as_bytes()), Err(IdentityError::KeySetSyntax { .. })), "{bad}");
    }
    let mut encryption = Signer::rs("RS256").jwk("enc");
    encryption["use"] = json!("enc");
    let mut unknown = Signer::rs("RS256").jwk("oaep");
    unknown["alg"] = json!("RSA-OAEP");
    let mut wrapping = Signer::rs("RS256").jwk("wrap");
    wrapping["key_ops"] = json!(["wrapKey"]);
    let mut twisted = Signer::es("ES256").jwk("twisted");
    twisted["alg"] = json!("RS256");
    let useless = [encryption, unknown, wrapping, twisted, json!("text"), json!({ "kty": "RSA" })];
    assert_eq!(KeySet::parse(key_set(&useless).as_bytes()), Err(IdentityError::NoUsableKey { got: 6 }));
    let mut with_a_good_one = useless.to_vec();
    with_a_good_one.push(Signer::ed().jwk("good"));
    let set = KeySet::parse(key_set(&with_a_good_one).as_bytes()).unwrap();
    assert_eq!(set.keys().iter().map(Key::id).collect::<Vec<_>>(), [Some("good")]);
}
