package main

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Methods of a distributed switch about its ports.

// FetchDVPorts lists ports with their effective settings and state.
func (d *switchMethods) FetchDVPorts(_ *simulator.Context, req *types.FetchDVPorts) soap.HasFault {
	res := &types.FetchDVPortsResponse{}
	d.v.mu.Lock()
	defer d.v.mu.Unlock()
	s := d.v.switchOf(d.DistributedVirtualSwitch)
	for _, p := range s.selectPorts(req.Criteria) {
		res.Returnval = append(res.Returnval, s.viewPort(p))
	}
	return &methods.FetchDVPortsBody{Res: res}
}

// FetchDVPortKeys lists port keys.
func (d *switchMethods) FetchDVPortKeys(_ *simulator.Context, req *types.FetchDVPortKeys) soap.HasFault {
	res := &types.FetchDVPortKeysResponse{}
	d.v.mu.Lock()
	defer d.v.mu.Unlock()
	for _, p := range d.v.switchOf(d.DistributedVirtualSwitch).selectPorts(req.Criteria) {
		res.Returnval = append(res.Returnval, p.key)
	}
	return &methods.FetchDVPortKeysBody{Res: res}
}

// RefreshDVPortState does nothing: the state shown is always current.
func (d *switchMethods) RefreshDVPortState(*simulator.Context, *types.RefreshDVPortState) soap.HasFault {
	return &methods.RefreshDVPortStateBody{Res: &types.RefreshDVPortStateResponse{}}
}

// selectPorts returns the ports that meet all criteria, in the order of their keys.
func (s *dvswitch) selectPorts(c *types.DistributedVirtualSwitchPortCriteria) []*dvport {
	var out []*dvport
	for _, p := range s.ports {
		if c == nil || p.meets(c) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *dvport) int {
		if c := cmp.Compare(len(a.key), len(b.key)); c != 0 {
			return c
		}
		return cmp.Compare(a.key, b.key)
	})
	return out
}

func (p *dvport) meets(c *types.DistributedVirtualSwitchPortCriteria) bool {
	if c.Inside != nil {
		inside := len(c.PortgroupKey) == 0 || slices.Contains(c.PortgroupKey, p.portgroup)
		if inside != *c.Inside {
			return false
		}
	}
	switch {
	case len(c.PortKey) != 0 && !slices.Contains(c.PortKey, p.key),
		c.Connected != nil && *c.Connected != (p.nic != nil),
		c.Active != nil && *c.Active != p.linkUp,
		c.UplinkPort != nil && *c.UplinkPort != p.uplink,
		len(c.Host) != 0 && (p.host == nil || !slices.Contains(c.Host, *p.host)):
		return false
	}
	return true
}

// viewPort is a port as FetchDVPorts shows it.
func (s *dvswitch) viewPort(p *dvport) types.DistributedVirtualPort {
	setting := effectiveSetting(s.portgroups[p.portgroup].inherited, p.override)
	view := types.DistributedVirtualPort{
		Key: p.key, DvsUuid: s.uuid, PortgroupKey: p.portgroup,
		Config: types.DVPortConfigInfo{
			Name: p.name, Description: p.description, Scope: p.scope, Setting: setting,
			ConfigVersion: strconv.Itoa(p.version),
		},
		ProxyHost: p.host, Connectee: p.connectee(), ConnectionCookie: p.cookie,
		LastStatusChange: p.changedAt,
		HostLocalPort:    types.NewBool(false),
	}
	if p.nic != nil {
		vlans, trunk := vlanRanges(setting.Vlan)
		view.State = &types.DVPortState{RuntimeInfo: &types.DVPortStatus{
			LinkUp: p.linkUp, LinkPeer: p.peer, MacAddress: p.mac, Blocked: isTrue(setting.Blocked),
			VlanIds: vlans, TrunkingMode: &trunk,
		}}
	}
	return view
}

// ReconfigureDVPortTask changes ports: all of the request or nothing of it. What
// a host that vCenter has lost was to be told, it is told later: the task says
// so with DvsOperationBulkFault, and the change stands.
func (d *switchMethods) ReconfigureDVPortTask(ctx *simulator.Context, req *types.ReconfigureDVPort_Task) soap.HasFault {
	task := runTask(ctx, d.DistributedVirtualSwitch, "reconfigureDvPort", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		d.v.mu.Lock()
		s := d.v.switchOf(d.DistributedVirtualSwitch)
		for i := range req.Port {
			if f := s.checkPortSpec(&req.Port[i]); f != nil {
				d.v.mu.Unlock()
				return nil, f
			}
		}
		var keys []string
		var hosts []ref
		for i := range req.Port {
			p := s.ports[req.Port[i].Key]
			p.configure(&req.Port[i])
			keys = append(keys, p.key)
			if p.host != nil && !slices.Contains(hosts, *p.host) {
				hosts = append(hosts, *p.host)
			}
		}
		d.v.nics.touch()
		event := &types.DvsPortReconfiguredEvent{DvsEvent: d.v.switchEvent(s), PortKey: keys}
		d.v.mu.Unlock()
		d.v.postLater(event)
		return nil, d.v.notTaken(hosts)
	})
	return &methods.ReconfigureDVPort_TaskBody{Res: &types.ReconfigureDVPort_TaskResponse{Returnval: task}}
}

// checkPortSpec tells why a specification can't be applied.
func (s *dvswitch) checkPortSpec(spec *types.DVPortConfigSpec) types.BaseMethodFault {
	if spec.Operation != string(types.ConfigSpecOperationEdit) {
		return &types.InvalidArgument{InvalidProperty: "port.operation"}
	}
	p := s.ports[spec.Key]
	if p == nil {
		return &types.NotFound{}
	}
	if spec.ConfigVersion != "" && spec.ConfigVersion != strconv.Itoa(p.version) {
		return &types.ConcurrentAccess{}
	}
	if spec.Setting == nil {
		return nil
	}
	setting, ok := spec.Setting.(*types.VMwareDVSPortSetting)
	if !ok {
		return &types.InvalidArgument{InvalidProperty: "port.setting"}
	}
	policy := s.portgroups[p.portgroup].policy
	for _, o := range []struct {
		property  string
		overrides bool
		allowed   bool
	}{
		{"vlan", setting.Vlan != nil && !setting.Vlan.GetVmwareDistributedVirtualSwitchVlanSpec().Inherited, policy.VlanOverrideAllowed},
		{"blocked", setting.Blocked != nil && !setting.Blocked.Inherited, policy.BlockOverrideAllowed},
		{"securityPolicy", setting.SecurityPolicy != nil && !setting.SecurityPolicy.Inherited, policy.SecurityPolicyOverrideAllowed},
		{"uplinkTeamingPolicy", setting.UplinkTeamingPolicy != nil && !setting.UplinkTeamingPolicy.Inherited, policy.UplinkTeamingOverrideAllowed},
		{"inShapingPolicy", setting.InShapingPolicy != nil && !setting.InShapingPolicy.Inherited, policy.ShapingOverrideAllowed},
		{"outShapingPolicy", setting.OutShapingPolicy != nil && !setting.OutShapingPolicy.Inherited, policy.ShapingOverrideAllowed},
	} {
		if o.overrides && !o.allowed {
			return overrideForbidden(o.property)
		}
	}
	if setting.Vlan != nil && !setting.Vlan.GetVmwareDistributedVirtualSwitchVlanSpec().Inherited {
		return checkVlan(setting.Vlan, "port.setting.vlan.vlanId")
	}
	return nil
}

// configure applies a checked specification: only what it sets changes.
func (p *dvport) configure(spec *types.DVPortConfigSpec) {
	if spec.Name != "" {
		p.name = spec.Name
	}
	if spec.Description != "" {
		p.description = spec.Description
	}
	if spec.Scope != nil {
		p.scope = spec.Scope
	}
	if setting, ok := spec.Setting.(*types.VMwareDVSPortSetting); ok && setting != nil {
		if p.override == nil {
			p.override = &types.VMwareDVSPortSetting{}
		}
		mergeOverride(p.override, setting)
	}
	p.version++
	p.changedAt = time.Now()
}
