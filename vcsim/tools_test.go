package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

func TestWhatToolsReportIsPushedByTheHostAndGoesWhenTheGuestStops(t *testing.T) {
	f := start(t)
	f.control("POST", "/sync", nil)
	w := f.watch(f.esxi("esx-a"), "VirtualMachine", "guest.net")
	w.next(0)
	f.control("POST", "/guest-net", map[string]any{"vm": "guest", "nics": []any{map[string]any{
		"device_key": 4000, "mac": "00:50:56:80:00:01",
		"addresses": []any{map[string]any{"address": "10.1.0.5"}, map[string]any{"address": "fe80::5", "origin": "linklayer"}},
	}}})
	w.until("both addresses", func(u types.ObjectUpdate) bool {
		told := reportedIn(u)
		if len(told) != 1 || told[0].DeviceConfigId != 4000 {
			return false
		}
		a := told[0].IpConfig.IpAddress
		return len(a) == 2 && a[0].IpAddress == "10.1.0.5" && a[0].State == "preferred" && a[1].PrefixLength == 64
	})
	f.powerOff(f.vm("guest"))
	w.until("nothing", func(u types.ObjectUpdate) bool { return len(reportedIn(u)) == 0 })
}

// reportedIn is the guest.net that an update assigns.
func reportedIn(u types.ObjectUpdate) []types.GuestNicInfo {
	for _, c := range u.ChangeSet {
		if net, ok := c.Val.(types.ArrayOfGuestNicInfo); ok {
			return net.GuestNicInfo
		}
	}
	return nil
}
