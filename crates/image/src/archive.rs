//! An image, and the archive of one in the layout of the Open Container Initiative.

use crate::{Error, Layer, Result, USER, digest, layer::append};
use serde_json::{Value, json};
use std::path::Path;

const TYPE: &str = "application/vnd.oci.image";

/// Layers, and how a container of them starts.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// What a container runs: a path, and arguments.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// What tools show of the image.
    pub labels: Vec<(String, String)>,
}

/// Something that is kept under its hash.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// The hash, as `sha256:…`.
    pub digest: &'a str,
    /// The media type.
    pub kind: &'static str,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// An image as registries keep it: its manifest, and the blobs that the manifest names.
#[derive(Debug)]
pub struct Packed<'a> {
    image: &'a Image,
    configuration: (String, Vec<u8>),
    manifest: (String, Vec<u8>),
}

impl Image {
    /// Writes down the configuration and the manifest.
    #[must_use]
    pub fn pack(&self) -> Packed<'_> {
        let configuration = hashed(&self.configuration());
        let described = |kind: &str, digest: &str, size: usize| json!({"mediaType": kind, "digest": digest, "size": size});
        let layers: Vec<Value> = self.layers.iter().map(|layer| described(LAYER, &layer.digest, layer.bytes.len())).collect();
        let manifest = hashed(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(CONFIGURATION, &configuration.0, configuration.1.len()),
            "layers": layers,
        }));
        Packed { image: self, configuration, manifest }
    }

    fn configuration(&self) -> Value {
        let unpacked: Vec<&str> = self.layers.iter().map(|layer| layer.unpacked_digest.as_str()).collect();
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{USER}:{USER}"),
                "Entrypoint": self.entrypoint,
                "Env": self.environment,
                "Labels": labels,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": unpacked},
        })
    }
}

/// The media type of a layer.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn hashed(value: &Value) -> (String, Vec<u8>) {
    let bytes = value.to_string().into_bytes();
    (digest(&bytes), bytes)
}

/// The name that images have for the processor that this runs on.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

impl Packed<'_> {
    /// The layers and the configuration, in the order in which a registry wants them: all before the manifest that names them.
    pub fn blobs(&self) -> impl Iterator<Item = Blob<'_>> {
        let layers = self.image.layers.iter().map(|layer| Blob { digest: &layer.digest, kind: LAYER, bytes: &layer.bytes });
        layers.chain([Blob { digest: &self.configuration.0, kind: CONFIGURATION, bytes: &self.configuration.1 }])
    }

    /// The manifest, whose hash is the image's.
    #[must_use]
    pub fn manifest(&self) -> Blob<'_> {
        Blob { digest: &self.manifest.0, kind: MANIFEST, bytes: &self.manifest.1 }
    }
}

/// An image under a name, to be written into one file.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    /// As in `registry.example/project:tag`.
    pub name: &'a str,
    /// What it holds.
    pub image: &'a Image,
}

impl Archive<'_> {
    /// Writes the archive and gives the image's hash. The file is replaced at once, so there is never half of one.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<String> {
        let packed = self.image.pack();
        let manifest = packed.manifest();
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": format!("{TYPE}.index.v1+json"),
            "manifests": [{
                "mediaType": manifest.kind,
                "digest": manifest.digest,
                "size": manifest.bytes.len(),
                "annotations": {"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag},
            }],
        });
        let mut tar = tar::Builder::new(Vec::new());
        let mut put = |path: &str, bytes: &[u8]| append(&mut tar, path, 0o644, Some(bytes)).map_err(Error::Pack);
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put("index.json", index.to_string().as_bytes())?;
        let mut written = std::collections::BTreeSet::new();
        for blob in packed.blobs().chain([manifest]) {
            // Two layers of the same files are one blob.
            if written.insert(blob.digest) {
                put(&format!("blobs/{}", blob.digest.replace(':', "/")), blob.bytes)?;
            }
        }
        let bytes = tar.into_inner().map_err(Error::Pack)?;
        let unfinished = path.with_extension("unfinished");
        std::fs::write(&unfinished, bytes).map_err(Error::file(&unfinished))?;
        std::fs::rename(&unfinished, path).map_err(Error::file(path))?;
        Ok(manifest.digest.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    fn image() -> Image {
        let base = Layer::of(&[Entry::file("etc/passwd", b"nobody".to_vec())]).unwrap();
        let program = Layer::of(&[Entry::program("app/run", b"bytes".to_vec())]).unwrap();
        Image {
            layers: vec![base, program.clone(), program],
            entrypoint: vec!["/app/run".into()],
            environment: vec!["A=b".into()],
            labels: vec![("name".into(), "value".into())],
        }
    }

    fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        use std::io::Read as _;
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
        };
        tar::Archive::new(archive).entries().unwrap().map(read).collect()
    }

    #[test]
    fn every_hash_in_an_archive_leads_to_bytes_with_that_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let image = image();
        let name = Archive { name: "registry.example:5000/a:1.2", image: &image }.write(&path).unwrap();
        let files = files(&std::fs::read(&path).unwrap());
        let blob = |digest: &str| {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            let mut found = files.iter().filter(|(file, _)| *file == path);
            let bytes = &found.next().unwrap_or_else(|| panic!("{digest} is missing")).1;
            assert!(found.next().is_none(), "{digest} is there twice");
            assert_eq!(crate::digest(bytes), digest);
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files.iter().find(|(file, _)| file == "index.json").unwrap().1).unwrap();
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "registry.example:5000/a:1.2");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "1.2");
        assert_eq!(index["manifests"][0]["digest"], name);
        let manifest: Value = serde_json::from_slice(&blob(&name)).unwrap();
        let configuration: Value = serde_json::from_slice(&blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
        assert_eq!(configuration["config"]["User"], "65532:65532");
        assert_eq!(configuration["config"]["Labels"]["name"], "value");
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 3);
        for (layer, unpacked) in layers.iter().zip(configuration["rootfs"]["diff_ids"].as_array().unwrap()) {
            use std::io::Read as _;
            let bytes = blob(layer["digest"].as_str().unwrap());
            assert_eq!(layer["size"], bytes.len());
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            assert_eq!(*unpacked, crate::digest(&plain));
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let written = ["first", "second"].map(|name| {
            let path = folder.path().join(name);
            Archive { name: "a:1", image: &image() }.write(&path).unwrap();
            std::fs::read(path).unwrap()
        });
        assert_eq!(written[0], written[1]);
        // These bytes are also those of other machines: whoever changes how layers are packed makes everybody push everything again.
        assert_eq!(image().layers[0].digest, "sha256:f302f882d79b56cf8af04996950ec3ccd06032eddef762cbd208b113560016de");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = Archive { name: "a:1", image: &image() }.write(Path::new("/nowhere/image.tar")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/image"), "{error}");
    }
}
