//! Model and adapter folders: what is saved reads back the same, what is wrong is named.

use std::path::{Path, PathBuf};

use crrl_model::adapter::AdapterError;
use crrl_model::{
    AdapterWeights, Cpu, Decoder, FileDtype, Lora, LoraConfig, ModelDir, Target, peft,
};
use crrl_types::{AdapterManifest, AdapterVersion, Digest};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(fixture(name)).expect("a fixture") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copies");
        }
    }
    dir
}

fn adapter() -> (Decoder<Cpu>, AdapterWeights) {
    let dir = ModelDir::open(fixture("qwen3")).expect("opens");
    let decoder = Decoder::<Cpu>::load(&dir, &Default::default()).expect("loads");
    let config = LoraConfig { rank: 3, alpha: 4.5, ..LoraConfig::default() };
    let lora = Lora::<Cpu>::init(&config, &decoder.config, 7, &Default::default());
    (decoder, lora.to_weights())
}

#[test]
fn a_saved_model_is_the_model_it_was() {
    for name in ["llama-llama3", "qwen2", "qwen3"] {
        let dir = ModelDir::open(fixture(name)).expect("opens");
        let decoder = Decoder::<Cpu>::load(&dir, &Default::default()).expect("loads");
        let out = tempfile::tempdir().expect("a folder");
        decoder.save(out.path(), FileDtype::F32).expect("saves");
        let again = ModelDir::open(out.path()).expect("opens");
        assert_eq!(again.config(), dir.config(), "{name}");
        assert_eq!(again.base_digest().expect("reads"), decoder.base_digest(), "{name}");
    }
}

#[test]
fn a_new_model_is_the_same_for_the_same_seed_only() {
    let dir = ModelDir::open(fixture("qwen2-yarn")).expect("opens");
    let make = |seed| Decoder::<Cpu>::random(dir.config(), seed, &Default::default()).base_digest();
    assert_eq!(make(1), make(1));
    assert_ne!(make(1), make(2));
}

#[test]
fn a_damaged_folder_says_which_file_and_why() {
    let message = |dir: &Path| ModelDir::open(dir).expect_err("damaged").to_string();
    let dir = copy("llama");
    let weights = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).expect("reads");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).expect("writes");
    assert!(message(dir.path()).contains("model.safetensors"), "{}", message(dir.path()));
    std::fs::write(&weights, [0xff; 64]).expect("writes");
    assert!(message(dir.path()).contains("header"), "{}", message(dir.path()));
    std::fs::remove_file(&weights).expect("removes");
    assert!(message(dir.path()).contains("neither"), "{}", message(dir.path()));
    std::fs::remove_file(dir.path().join("config.json")).expect("removes");
    assert!(message(dir.path()).contains("config.json"), "{}", message(dir.path()));

    let dir = copy("qwen2");
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, text.replace("\"intermediate_size\": 56", "\"intermediate_size\": 48"))
        .expect("writes");
    assert!(message(dir.path()).contains("gate_proj"), "{}", message(dir.path()));
    let index = dir.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).expect("reads");
    std::fs::write(&index, text.replace("model-00001", "../model-00001")).expect("writes");
    assert!(message(dir.path()).contains("leads out"), "{}", message(dir.path()));
}

#[test]
fn an_adapter_goes_through_peft_and_bytes_unchanged() {
    let (_, weights) = adapter();
    let dir = tempfile::tempdir().expect("a folder");
    peft::save(&weights, dir.path(), "some/base", FileDtype::F32).expect("saves");
    assert_eq!(peft::load(dir.path()).expect("loads"), weights);
    let again = AdapterWeights::from_bytes(&weights.to_bytes(FileDtype::F32)).expect("reads");
    assert_eq!(again, weights);
    let lora = Lora::<Cpu>::from_weights(&weights, &Default::default());
    assert_eq!(lora.to_weights(), weights);
}

#[test]
fn an_adapter_in_bf16_is_rounded_to_the_nearest_and_half_as_long() {
    let (decoder, mut weights) = adapter();
    // Halfway between two numbers of bf16 the even one is taken: down once, up once.
    weights.tensors[0].values[..2].copy_from_slice(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
    let (whole, bytes) = (weights.to_bytes(FileDtype::F32), weights.to_bytes(FileDtype::Bf16));
    let count: usize = weights.tensors.iter().map(|tensor| tensor.values.len()).sum();
    let data = |file: &[u8]| {
        let (header, rest) = file.split_first_chunk().expect("a safetensors file");
        rest.len() - u64::from_le_bytes(*header) as usize
    };
    assert_eq!((data(&whole), data(&bytes)), (4 * count, 2 * count));
    let rounded = AdapterWeights::from_bytes(&bytes).expect("reads");
    assert_eq!(rounded.tensors[0].values[..2], [1.0, 1.0 + 4.0 / 256.0]);
    let mut moved = 0;
    for (tensor, exact) in rounded.tensors.iter().zip(&weights.tensors) {
        assert_eq!((&tensor.name, tensor.shape), (&exact.name, exact.shape));
        for (rounded, exact) in tensor.values.iter().zip(&exact.values) {
            assert!((rounded - exact).abs() <= exact.abs() / 256.0, "{exact} became {rounded}");
            moved += usize::from(rounded != exact);
        }
    }
    assert!(moved > count / 4, "{moved} of {count} were rounded, so this tests nothing");
    assert_eq!(rounded.to_bytes(FileDtype::Bf16), bytes, "rounded twice is rounded once");

    // A folder for other programs: bf16 as it is, and what is read of it is what was rounded.
    let dir = tempfile::tempdir().expect("a folder");
    peft::save(&weights, dir.path(), "some/base", FileDtype::Bf16).expect("saves");
    let file = std::fs::read(dir.path().join("adapter_model.safetensors")).expect("reads");
    assert_eq!(file, bytes);
    assert_eq!(peft::load(dir.path()).expect("loads"), rounded);

    let manifest =
        weights.manifest(&bytes, FileDtype::Bf16, AdapterVersion(1), decoder.base_digest());
    assert!(manifest.finite && manifest.tensors.iter().all(|tensor| tensor.dtype == "BF16"));
    let read = AdapterWeights::verified(&manifest, &bytes, &decoder.config, decoder.base_digest());
    assert_eq!(read.expect("as published"), rounded);
}

#[test]
fn a_value_that_rounds_to_infinity_is_not_called_finite() {
    let (decoder, mut weights) = adapter();
    let base = decoder.base_digest();
    weights.tensors[4].values[1] = -f32::MAX;
    assert_eq!(weights.first_not_finite(), None);
    assert_eq!(weights.first_not_finite_as(FileDtype::F32), None);
    let named = weights.first_not_finite_as(FileDtype::Bf16);
    assert_eq!(named, Some(weights.tensors[4].name.as_str()));
    for (dtype, finite) in [(FileDtype::F32, true), (FileDtype::Bf16, false)] {
        let bytes = weights.to_bytes(dtype);
        let manifest = weights.manifest(&bytes, dtype, AdapterVersion(1), base);
        assert_eq!(manifest.finite, finite, "{dtype:?}");
        let read = AdapterWeights::verified(&manifest, &bytes, &decoder.config, base);
        assert_eq!(read.is_ok(), finite, "{dtype:?}");
    }
    // The greatest number that bf16 has is held.
    weights.tensors[4].values[1] = f32::from_bits(0x7f7f_0000);
    assert_eq!(weights.first_not_finite_as(FileDtype::Bf16), None);
}

#[test]
fn an_adapter_that_is_not_what_its_manifest_says_is_refused() {
    let (decoder, mut weights) = adapter();
    let base = decoder.base_digest();
    let bytes = weights.to_bytes(FileDtype::Bf16);
    let manifest = weights.manifest(&bytes, FileDtype::Bf16, AdapterVersion(3), base);
    let verify = |manifest: &AdapterManifest, bytes: &[u8], base| {
        AdapterWeights::verified(manifest, bytes, &decoder.config, base)
    };
    verify(&manifest, &bytes, base).expect("as published");

    let mut flipped = bytes.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    assert!(matches!(verify(&manifest, &flipped, base), Err(AdapterError::Digest { .. })));
    let other = Digest::of(b"another base");
    assert!(matches!(verify(&manifest, &bytes, other), Err(AdapterError::Base { .. })));
    let mut louder = manifest.clone();
    louder.alpha_milli += 1;
    assert!(matches!(verify(&louder, &bytes, base), Err(AdapterError::Manifest("alpha"))));
    let mut wider = manifest.clone();
    wider.tensors[2].dtype = "F32".into();
    assert!(matches!(verify(&wider, &bytes, base), Err(AdapterError::Manifest("types"))));
    let mut longer = manifest.clone();
    longer.tensors[2].shape[1] += 1;
    assert!(matches!(verify(&longer, &bytes, base), Err(AdapterError::Manifest("shapes"))));

    weights.tensors[5].values[2] = f32::NAN;
    let bytes = weights.to_bytes(FileDtype::F32);
    let manifest = weights.manifest(&bytes, FileDtype::F32, AdapterVersion(4), base);
    assert!(!manifest.finite);
    assert!(matches!(verify(&manifest, &bytes, base), Err(AdapterError::NotFinite { .. })));
}

#[test]
fn an_adapter_of_another_shape_is_refused() {
    let (decoder, _) = adapter();
    let other = ModelDir::open(fixture("llama-llama3")).expect("opens");
    let config = LoraConfig { targets: vec![Target::K], ..LoraConfig::default() };
    let lora = Lora::<Cpu>::init(&config, other.config(), 7, &Default::default());
    let message =
        lora.to_weights().check_shapes(&decoder.config).expect_err("narrower").to_string();
    assert!(message.contains("k_proj"), "{message}");
}

#[test]
fn peft_features_that_change_the_result_are_refused() {
    let (_, weights) = adapter();
    let dir = tempfile::tempdir().expect("a folder");
    peft::save(&weights, dir.path(), "some/base", FileDtype::F32).expect("saves");
    let path = dir.path().join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("reads");
    for (from, to, named) in [
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora"),
        ("\"LORA\"", "\"IA3\"", "IA3"),
        ("\"bias\": \"none\"", "\"bias\": \"all\"", "bias"),
        ("\"q_proj\"", "\"lm_head\"", "lm_head"),
        ("\"r\": 3", "\"r\": 4", "rank is 4"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replace(from, to)).expect("writes");
        let message = peft::load(dir.path()).expect_err(to).to_string();
        assert!(message.contains(named), "{message}");
    }
}
