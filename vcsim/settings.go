package main

import (
	"bytes"
	"reflect"

	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// Port settings. Each field of VMwareDVSPortSetting is a policy that carries
// its own flag "inherited": true where a port shows the portgroup's default,
// false where it overrides it.

// inheritedSetting is a copy of a portgroup's defaults with every policy marked as inherited.
func inheritedSetting(defaults types.BaseDVPortSetting) *types.VMwareDVSPortSetting {
	s, ok := defaults.(*types.VMwareDVSPortSetting)
	if !ok || s == nil {
		s = &types.VMwareDVSPortSetting{Vlan: &types.VmwareDistributedVirtualSwitchVlanIdSpec{}}
	}
	s = deepCopy(s)
	markInherited(s, true)
	return s
}

// completeSetting fills in what vCenter shows for a setting that nobody made:
// not blocked, no VLAN, and a security policy that rejects all.
func completeSetting(s *types.VMwareDVSPortSetting) {
	no := func() *types.BoolPolicy { return &types.BoolPolicy{Value: types.NewBool(false)} }
	if s.Blocked == nil {
		s.Blocked = no()
	}
	if s.Vlan == nil {
		s.Vlan = &types.VmwareDistributedVirtualSwitchVlanIdSpec{}
	}
	if s.SecurityPolicy == nil {
		s.SecurityPolicy = &types.DVSSecurityPolicy{AllowPromiscuous: no(), MacChanges: no(), ForgedTransmits: no()}
	}
}

// markInherited sets the flag of every policy in s.
func markInherited(s *types.VMwareDVSPortSetting, inherited bool) {
	setting := reflect.ValueOf(s).Elem()
	eachEmbedded(setting, setting, func(setting, _ reflect.Value) {
		eachPolicy(setting, func(_ int, policy reflect.Value) {
			if flag := inheritedFlag(policy); flag.IsValid() {
				flag.SetBool(inherited)
			}
		})
	})
}

// mergeOverride applies a port's specification to its overrides: a policy that
// is inherited drops the override, another replaces it, an absent one stays.
func mergeOverride(override, spec *types.VMwareDVSPortSetting) {
	mergePolicies(reflect.ValueOf(override).Elem(), reflect.ValueOf(spec).Elem(), true)
}

// mergeDefaults applies a portgroup's specification to its defaults.
func mergeDefaults(defaults, spec *types.VMwareDVSPortSetting) {
	mergePolicies(reflect.ValueOf(defaults).Elem(), reflect.ValueOf(spec).Elem(), false)
	markInherited(defaults, false)
}

// effectiveSetting is what a port shows: overrides over the portgroup's
// defaults. The policies are shared with the model and must not be changed.
func effectiveSetting(inherited, override *types.VMwareDVSPortSetting) *types.VMwareDVSPortSetting {
	s := *inherited
	if override != nil {
		mergePolicies(reflect.ValueOf(&s).Elem(), reflect.ValueOf(override).Elem(), false)
	}
	return &s
}

func mergePolicies(dst, src reflect.Value, dropInherited bool) {
	eachEmbedded(dst, src, func(dst, src reflect.Value) {
		eachPolicy(src, func(i int, policy reflect.Value) {
			if flag := inheritedFlag(policy); dropInherited && flag.IsValid() && flag.Bool() {
				dst.Field(i).SetZero()
				return
			}
			dst.Field(i).Set(src.Field(i))
		})
	})
}

// eachEmbedded calls f for a pair of structs and for the structs embedded in them.
func eachEmbedded(a, b reflect.Value, f func(a, b reflect.Value)) {
	for i := range a.NumField() {
		if a.Type().Field(i).Anonymous {
			eachEmbedded(a.Field(i), b.Field(i), f)
		}
	}
	f(a, b)
}

// eachPolicy calls f for the policies that are set directly in a setting's struct.
func eachPolicy(setting reflect.Value, f func(i int, policy reflect.Value)) {
	for i := range setting.NumField() {
		field := setting.Field(i)
		switch field.Kind() {
		case reflect.Pointer, reflect.Interface, reflect.Slice:
			if !field.IsNil() {
				f(i, field)
			}
		case reflect.String:
			if field.Len() != 0 {
				f(i, field)
			}
		}
	}
}

// inheritedFlag is the flag of a policy, or the zero Value.
func inheritedFlag(policy reflect.Value) reflect.Value {
	for policy.Kind() == reflect.Pointer || policy.Kind() == reflect.Interface {
		policy = policy.Elem()
	}
	if policy.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return policy.FieldByName("Inherited")
}

// vlanRanges are the VLAN ids a port lets through, and whether it is a trunk.
func vlanRanges(vlan types.BaseVmwareDistributedVirtualSwitchVlanSpec) (ranges []types.NumericRange, trunk bool) {
	switch t := vlan.(type) {
	case *types.VmwareDistributedVirtualSwitchVlanIdSpec:
		return []types.NumericRange{{Start: t.VlanId, End: t.VlanId}}, false
	case *types.VmwareDistributedVirtualSwitchTrunkVlanSpec:
		return t.VlanId, true
	case *types.VmwareDistributedVirtualSwitchPvlanSpec:
		return []types.NumericRange{{Start: t.PvlanId, End: t.PvlanId}}, false
	}
	return nil, false
}

// checkVlan refuses VLAN ids outside 0..4094.
func checkVlan(vlan types.BaseVmwareDistributedVirtualSwitchVlanSpec, property string) types.BaseMethodFault {
	ranges, _ := vlanRanges(vlan)
	for _, r := range ranges {
		if r.Start < 0 || r.End > 4094 || r.Start > r.End {
			return invalidVlan(property)
		}
	}
	return nil
}

func isTrue(p *types.BoolPolicy) bool { return p != nil && p.Value != nil && *p.Value }

// deepCopy copies a vim25 value by way of its XML form, like a client would receive it.
func deepCopy[T any](src *T) *T {
	dst := new(T)
	copyXML(src, dst)
	return dst
}

func copyXML(src, dst any) {
	b, err := xml.Marshal(src)
	if err != nil {
		panic(err) // vim25 types marshal
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.TypeFunc = types.TypeFunc()
	if err := d.Decode(dst); err != nil {
		panic(err)
	}
}
