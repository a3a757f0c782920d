//! Images: a configuration, whose digest is the id, and the manifest that names it and its layers.

use bulkhead_types::Digest;
use bulkhead_types::image::{Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_MANIFEST};

use crate::{Content, ImageError};

/// An image that is complete on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredImage {
    /// Digest of the configuration: Docker's image id.
    pub id: Digest,
    /// Digest of the manifest, by which registries know it.
    pub manifest: Digest,
}

impl Content {
    /// The manifest of the image with this id.
    pub fn manifest(&self, image: Digest) -> Result<Manifest, ImageError> {
        let digest = self.linked_manifest(image)?;
        parse(&self.read(digest)?, "manifest", digest)
    }

    /// The configuration of the image whose id (digest of the configuration) this is.
    pub fn config(&self, image: Digest) -> Result<ImageConfig, ImageError> {
        parse(&self.read(image)?, "configuration", image)
    }

    /// Id and manifest of an image that is here.
    pub fn stored(&self, image: Digest) -> Result<StoredImage, ImageError> {
        Ok(StoredImage { id: image, manifest: self.linked_manifest(image)? })
    }

    /// Makes an image of what is here already, under a manifest kept as its bytes are.
    ///
    /// Its configuration and layers must be here, the layers unpacked.
    pub fn adopt_image(&self, manifest: &[u8]) -> Result<StoredImage, ImageError> {
        let digest = Digest::of(manifest);
        let parsed: Manifest = parse(manifest, "manifest", digest)?;
        let id = parsed.config.digest;
        let config = self.config(id)?;
        if let Some(layer) = config.rootfs.diff_ids.iter().find(|layer| !self.has_layer(**layer)) {
            return Err(ImageError::Missing(*layer));
        }
        if let Some(layer) = parsed.layers.iter().find(|layer| !self.contains(layer.digest)) {
            return Err(ImageError::Missing(layer.digest));
        }
        self.write(manifest)?;
        self.link_image(id, digest)?;
        Ok(StoredImage { id, manifest: digest })
    }

    /// Stores configuration and manifest of a new image. Its layers must be here.
    pub fn write_image(
        &self,
        config: &ImageConfig,
        layers: &[Descriptor],
    ) -> Result<StoredImage, ImageError> {
        if config.rootfs.diff_ids.len() != layers.len() {
            return Err(ImageError::BadImage(format!(
                "{} layers, but {} diff ids",
                layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        if let Some(layer) = layers.iter().find(|layer| !self.contains(layer.digest)) {
            return Err(ImageError::Missing(layer.digest));
        }
        let bytes = serde_json::to_vec(config).expect("a configuration has nothing but text keys");
        let id = self.write(&bytes)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: Descriptor {
                media_type: OCI_CONFIG.to_owned(),
                digest: id,
                size: bytes.len() as u64,
                platform: None,
                annotations: Default::default(),
            },
            layers: layers.to_vec(),
            annotations: Default::default(),
        };
        let bytes = serde_json::to_vec(&manifest).expect("a manifest has nothing but text keys");
        let manifest = self.write(&bytes)?;
        self.link_image(id, manifest)?;
        Ok(StoredImage { id, manifest })
    }
}

/// Reads a document that may come from anywhere. serde_json refuses more than 128 levels.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: &str,
    digest: Digest,
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::BadImage(format!("the {what} {digest} is malformed: {error}")))
}
