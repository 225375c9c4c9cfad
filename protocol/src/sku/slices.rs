//! Names of MIG slices. NVIDIA writes a profile as `1g.10gb`, `1c.3g.40gb` or, with an attribute, `1g.10gb+me`; resources and labels have a
//! dot for the plus, and so have models here.

/// Between the GPU's model and the profile, in names as in labels.
pub(super) const MARK: &str = "-MIG-";

/// A name in its GPU's part and its profile; none where it is not that of a slice.
pub(super) fn split(text: &str) -> Option<(&str, String)> {
    let at = text.to_ascii_uppercase().find(MARK)?;
    let (gpu, behind) = (&text[..at], &text[at + MARK.len()..]);
    Some((gpu, profile(behind)?)).filter(|(gpu, _)| !gpu.is_empty())
}

/// A profile under its one name; none where it is none.
pub(super) fn profile(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (size, attribute) = text.split_once("gb")?;
    let mut parts: Vec<&str> = size.split('.').collect();
    let number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    let (memory, compute) = (parts.pop()?, parts);
    let units = match compute.as_slice() {
        [slices] => slices.strip_suffix('g').is_some_and(number),
        [instances, slices] => {
            instances.strip_suffix('c').is_some_and(number) && slices.strip_suffix('g').is_some_and(number)
        }
        _ => false,
    };
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'+' | b'-');
    let apart = attribute.is_empty() || attribute.starts_with(['.', '+', '-']);
    if !units || !number(memory) || !apart || attribute.len() > 16 || !attribute.bytes().all(plain) {
        return None;
    }
    Some(format!("{size}gb{}", attribute.replace('+', ".")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Sku;

    #[test]
    fn a_slice_is_a_model_of_its_own_under_one_name() {
        for text in ["NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "H100-MIG-1g.10gb", "h100-80gb-mig-1G.10GB"] {
            assert_eq!(Sku::parse(text).unwrap().as_str(), "H100-MIG-1g.10gb", "{text}");
            assert_eq!(Sku::from_driver(text).as_str(), "H100-MIG-1g.10gb");
        }
        for text in ["H100-MIG-1g.10gb+me", "H100-MIG-1g.10gb.me", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me"] {
            assert_eq!(Sku::parse(text).unwrap().as_str(), "H100-MIG-1g.10gb.me", "{text}");
        }
        assert_ne!(Sku::parse("H100-MIG-1g.10gb").unwrap(), Sku::parse("H100").unwrap());
        let new = Sku::from_driver("NVIDIA-X9-MIG-2g.20gb");
        assert_eq!(new.as_str(), "NVIDIA-X9-MIG-2g.20gb", "of a GPU that is not known");
        let (gpu, profile) = new.slice_profile().unwrap();
        assert_eq!((gpu.as_str(), profile), ("NVIDIA-X9", "2g.20gb"));
    }

    #[test]
    fn what_is_no_slice_of_a_known_gpu_is_refused_where_people_write_it() {
        for text in [
            "H100-MIG-INVALID",
            "H100-MIG-",
            "-MIG-1g.10gb",
            "H100-MIG-1g",
            "H100-MIG-1g.10gbs",
            "H100-MIG-g.10gb",
            "X9-MIG-1g.10gb",
        ] {
            assert!(Sku::parse(text).is_err(), "{text}");
        }
        assert_eq!(Sku::parse("H10-MIG-1g.10gb").unwrap_err().nearest, Some("A10"), "the GPU's name is what is wrong");
        assert_eq!(Sku::from_driver("NVIDIA-H100-PCIe-MIG-INVALID").as_str(), "NVIDIA-H100-PCIe-MIG-INVALID");
    }

    #[test]
    fn labels_of_a_slice_lead_back_to_it_and_are_none_of_its_gpu() {
        for text in ["H100-MIG-1g.10gb", "H100-MIG-1g.10gb.me", "A100-40GB-MIG-1c.3g.20gb", "NVIDIA-X9-MIG-1g.24gb-me"]
        {
            let slice = Sku::from_driver(text);
            for label in slice.product_labels() {
                assert_eq!(Sku::from_driver(&label), slice, "{label}");
            }
        }
        let labels = Sku::parse("H100-MIG-1g.10gb.me").unwrap().product_labels();
        assert!(labels.contains(&"NVIDIA-H100-80GB-HBM3-MIG-1g.10gb.me".to_owned()), "{labels:?}");
        let whole = Sku::parse("H100").unwrap().product_labels();
        assert!(labels.iter().all(|label| !whole.contains(label)));
    }
}
